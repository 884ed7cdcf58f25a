"""Who may come in, for what, and how much of it: keys, limits, budgets, and what was used.

Begin with `auth`, the door. Nothing here knows of routes or HTTP bodies: it is told a request's headers and what its
route asks for.
"""
