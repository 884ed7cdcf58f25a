"""Figures for Prometheus: `meters` counts this gateway's own requests, `daemon` reads the daemon's when it is asked.

Counted once for each request, never for a delta. `prometheus_client` is imported here alone, and only after
`gather.prepare` has said where its processes share their counts.
"""
