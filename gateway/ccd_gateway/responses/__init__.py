"""The OpenAI Responses API.

`schema` decides what becomes of each parameter, `items` makes messages of input items, `resource` is the
response object, `events` makes both it and the stream's events of the model's answer, `table` and `store`
keep responses for all gateway processes, `runs` executes background responses, `routes` is the HTTP.
"""
