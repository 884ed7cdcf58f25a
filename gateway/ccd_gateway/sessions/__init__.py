"""Agents with tools of their own, over HTTP and WebSocket.

Begin with `routes`; `socket` is one follower of a session. The session itself, its process and its questions are the
daemon's (`ccd_daemon.session`).
"""
