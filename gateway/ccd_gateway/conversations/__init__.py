"""Conversations that ccd keeps, by name, over HTTP."""
