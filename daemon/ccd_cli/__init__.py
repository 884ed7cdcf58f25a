"""The `ccd` command. A folder for each word that a person types after it, a file for each command.

The only package that may import all others; nothing imports it. Begin with `root`.
"""
