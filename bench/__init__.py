"""Benchmarks of the whole product against floors and peers measured in the same run. Run: `python -m bench`."""
