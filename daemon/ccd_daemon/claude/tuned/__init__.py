"""What makes the installed CLI faster: the variables (`tuning`), and which of them its file knows (`probe`).

Nothing here changes what the CLI says.
"""
