"""`ccd cli`: which Claude Code CLI ccd runs, and getting one."""
