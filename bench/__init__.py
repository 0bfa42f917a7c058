"""Benchmarks: what this machine measures, beside its peers, in one run. `python -m bench`; docs/performance.md has the tables."""
