"""Clients for the ccd daemon: `Client` (blocking), `AsyncClient` (asyncio) and `TrioClient`."""
