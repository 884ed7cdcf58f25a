"""Claude Code's CLI: which one ccd runs, and getting one.

What finds, verifies and installs it is `ccd_daemon.claude`; here are the commands only. Begin with `cli`, the group.
"""
