"""Durable work over HTTP: the Flask project's tasks, ccd's own, and the batches of OpenAI and Anthropic."""
