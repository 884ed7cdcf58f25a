"""The batch APIs of OpenAI (files and batches) and Anthropic (message batches), over durable work."""
