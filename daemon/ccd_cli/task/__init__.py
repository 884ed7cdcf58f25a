"""`ccd task`: durable work, one file for each command."""
