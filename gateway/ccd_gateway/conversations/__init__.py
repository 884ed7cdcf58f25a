"""Conversations that the daemon keeps: their list over HTTP, and the one that a chat names.

Begin with `routes`. What was said in a conversation never passes here.
"""
