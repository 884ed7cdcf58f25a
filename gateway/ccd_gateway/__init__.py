"""The ccd gateway: OpenAI-compatible HTTP in front of the ccd daemon."""
