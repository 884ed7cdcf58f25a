"""`task.*` and `file.*` on a socket of their own: what is accepted, and how it is shown."""
