"""Answers checked against the schema that their caller gave, by processes that can be killed, never on the event loop.

Begin with `checker`; `program` is what the processes run.
"""
