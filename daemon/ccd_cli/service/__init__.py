"""`ccd service`: ccd as a service of systemd. `units` renders the files and knows no system; `plan` compares and acts.

The units themselves are in the folder `systemd/` of the sources. Begin with `plan`.
"""
