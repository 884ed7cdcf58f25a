"""Asking the model from a terminal or a pipe: one question, or a file full of them.

Everything goes through the client library; nothing here knows the daemon or the gateway. Begin with `ask`.
"""
