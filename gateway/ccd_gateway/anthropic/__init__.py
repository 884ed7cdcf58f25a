"""The Anthropic Messages API: requests go to the CLI as they are, and its events come back as they are.

Begin with `routes`. Nothing is fitted or repaired here, for the model API is the one to judge a request; what the CLI
leaves out of its lines is put back by `events`.
"""
