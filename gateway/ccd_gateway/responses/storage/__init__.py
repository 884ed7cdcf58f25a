"""Where responses are kept: one SQLite file that all gateway processes share.

Begin with `table`, which is blocking and knows the file; `store` gives it a thread. Neither knows what a response says.
"""
