"""A small Messages API on loopback, for trying ccd without a login and for its tests.

No model answers here: a request is echoed visibly, or answered as a script says. Two things are taken
seriously: streams have the exact form of the real API, and what the real API refuses is refused
(`rules`), because a parameter is only known to work once an API that can say no has said yes.

`answer.directives` says how to script it, `app` which paths there are, `python -m ccd_offline --help` how
to start it.
"""
