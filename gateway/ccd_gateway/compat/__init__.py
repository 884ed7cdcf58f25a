"""The surfaces of the older projects, for programs that were written for them: `/api`, `/version`, `/stats`.

Begin with `routes`. The main path does not import from here; what the older projects' settings meant is
`ccd_settings.compat`.
"""
