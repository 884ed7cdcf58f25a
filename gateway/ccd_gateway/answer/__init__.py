"""Asking the daemon for answers, and reading what comes: the same for every surface.

Begin with `backend`. How an answer is written for a client is not here but in the surfaces; what one call may cost is
`access.metering`, which the backend asks before every call.
"""
