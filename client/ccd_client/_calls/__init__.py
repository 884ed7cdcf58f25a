"""The typed calls that every client offers, over the `call` and `call_stream` that each kind brings.

No socket, no event loop and no waiting: what differs between blocking and asynchronous code is in `api`. Begin with
`sending`, which says how one description serves both, then `catalogue`.
"""
