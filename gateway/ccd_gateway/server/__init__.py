"""gunicorn: the server, its worker class and WebSockets. The only room that touches gunicorn's own names."""
