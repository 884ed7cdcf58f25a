"""What an operator asks a running daemon, and the gateway's keys.

Each command prints text for a reader or, with `--json`, the daemon's own answer. Begin with `ctl`, the group.
"""
