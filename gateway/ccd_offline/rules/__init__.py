"""What the Messages API refuses, and in which words. Pure.

Begin with `validation`, which checks a request in the order of its parameters. What is answered to a good one is not
here but in `answer`, which may import this room, never the other way round.
"""
