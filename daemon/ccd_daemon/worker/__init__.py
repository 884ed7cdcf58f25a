"""One CLI process of the engine lane: its life as a table, its turns, its clocks.

`lifecycle` is the table and knows no process; `worker` feeds it. Begin there.
"""
