"""All that knows the foreign program: finding and installing it, its arguments, lines and control requests.

Nothing here holds a process. Begin with `argv` and `control`.
"""
