"""Durable work from Python: `Tasks` for blocking code, `AsyncTasks` for asyncio and trio."""
