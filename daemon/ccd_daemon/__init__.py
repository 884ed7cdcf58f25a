"""The ccd daemon: a warm pool of Claude Code CLI processes behind a Unix socket."""
