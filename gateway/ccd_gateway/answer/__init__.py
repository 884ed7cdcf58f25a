"""An answer on its way from the daemon: the connection, the open turn, its lines, several choices,
the cache's headers.
"""
