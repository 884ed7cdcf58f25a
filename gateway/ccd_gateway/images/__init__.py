"""Images and files that requests name: read beneath allowed directories, or fetched from networks that are allowed.

Begin with `remote` and `local`, which chats use. `confined` and `fetch` are the two guards, and the only modules that
open a file or a connection for a caller.
"""
