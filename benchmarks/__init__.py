"""Benchmarks that anyone can rerun, and the baseline they compare with."""
