"""OpenAI's Chat Completions. Begin with `routes`."""
