"""`ccd batch`: many lines as one piece of durable work."""
