"""Operating-system processes, whatever they run: spawning, trees, memory, control groups, reaping.

Nothing here knows Claude Code. Begin with `process`.
"""
