"""OpenAI's Chat Completions.

Begin with `routes`, which fills in the driver; `schema` says what a request may hold, `parameters` what becomes of it,
`translate` what it means to the daemon, `sse` how chunks are written. No other surface imports from here.
"""
