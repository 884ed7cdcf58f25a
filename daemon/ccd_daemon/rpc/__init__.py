"""The socket: who is connected, what they may call, and one handler for each method.

No process is started here and no request is understood here; handlers ask `pool`, `session` and `store`. Begin with
`server`, then `methods/chat`.
"""
