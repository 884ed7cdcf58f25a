"""claude-code-api's sessions: agents over HTTP, with a WebSocket each client may follow one by."""
