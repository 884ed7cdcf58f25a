"""What every request passes, whatever it is for: its route, the browser rules, the door, its body, its way out.

Begin with `envelope`. Nothing here knows what a chat is; which path leads where is said by the surfaces' lists of
routes, and read by `routing` alone.
"""
