"""Agent sessions: a CLI process bound to one conversation for life, and whoever follows it.

Nothing here serves plain chats; that is `pool` and `worker`. Begin with `sessions`, then `session`.
"""
