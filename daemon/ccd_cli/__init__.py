"""The `ccd` command. A room for each word that is typed after it, a file for each command, named as the command.

The only package that may import all others; nothing imports it. Commands read their options and call what does the
work; they decide nothing themselves. Begin with `root`; what several commands share is in `options` (what is typed),
`connection`, `output` and `ending` (exit statuses).
"""
