"""`ccd ctl keys`: who may call the gateway.

No daemon is needed: the file is the gateway's and is read and written by its modules. Begin with `file`.
"""
