"""What every request passes before and after its resource: limits, browsers, uploads, disconnects, the access log."""
