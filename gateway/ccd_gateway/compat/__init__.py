"""The HTTP surfaces of the two older projects, claude-code-api (Rust) and claude_code_api (Flask)."""
