"""Which worker serves which request: waiting, leasing, spares, and how many processes there may be.

What a worker does with a turn is in `worker`. Begin with `pool`.
"""
