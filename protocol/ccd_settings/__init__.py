"""Settings, for daemon and gateway alike: how they are read, where they may stand, and what each value may be.

The list of settings is not here: each program declares its own (`ccd_daemon.config`, `ccd_gateway.settings`).
And the other thing that both keep files for: `sqlite_file`, the one way in which a database is opened.

Begin with `settings`; `compat` reads what the older projects' variables and files meant.
"""
