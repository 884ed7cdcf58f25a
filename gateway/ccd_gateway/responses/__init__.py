"""The OpenAI Responses API.

Begin with `routes`, which fills in the driver. `schema` decides what becomes of each parameter, `items` makes messages
of input items, `resource` is the response object, `events` makes both it and the stream's events of the model's answer,
`storage` keeps responses for all gateway processes, `runs` executes background responses, `stored` shows them.
"""
