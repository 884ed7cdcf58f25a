"""What a good request is answered, and how it is played: content, usage, prompt caching, the steps of a stream.

Begin with `answers`; `directives` are the scripts by which a test says what it wants to hear. Nothing here refuses a
request: that is `rules`.
"""
