"""Durable work on DBOS: tasks, batches and workflows; the process behind `ccd worker`. Nothing else imports dbos."""
