"""The models that may be asked for, as OpenAI's and Anthropic's clients list them.

Begin with `listing`, which is pure; `routes` is the HTTP of both shapes. Which model a call really gets is the
daemon's to say, and which a key may use is `access.permission`.
"""
