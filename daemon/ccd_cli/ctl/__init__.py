"""`ccd ctl`: what an operator asks a running daemon, and the gateway's keys."""
