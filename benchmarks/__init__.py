"""Reproducible benchmarks, each run as `python -m benchmarks.NAME`, and the reference implementation they use."""
