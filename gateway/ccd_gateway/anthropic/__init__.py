"""The Anthropic Messages API: requests go to the CLI as they are, and its events come back as they are."""
