"""`ccd completion`: words that a shell completes.

`words` asks what there is (models, profiles, keys), briefly and without complaint: a shell waits for it. Begin with
`completion`.
"""
