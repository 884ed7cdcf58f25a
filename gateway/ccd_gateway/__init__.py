"""The ccd gateway: the APIs of OpenAI and Anthropic, and those of the older projects, in front of the ccd daemon.

Begin with `app`, which puts it together: each surface lists its routes, `surface.driver` is what they share, and `edge`
is what every request passes. No CLI is started here and no pool kept: all of that is the daemon's, behind its socket.
"""
