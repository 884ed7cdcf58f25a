"""What a request means to the CLI: pure functions from parameters to bodies and knobs.

No event loop and no operating system. Begin with `wish`, then `body`.
"""
