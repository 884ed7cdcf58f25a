"""Images that a request names instead of carrying: by URL or by path. Begin with `fetch` and `confined`."""
