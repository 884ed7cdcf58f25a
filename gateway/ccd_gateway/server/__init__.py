"""gunicorn: the server, its workers, its connections and its certificates.

Begin with `server`. Everything that touches what gunicorn does not document is in `internals` and nowhere else, so that
a new gunicorn is one module's work. What is served is not decided here but in `app`.
"""
