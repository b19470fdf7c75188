"""Benchmarks: pytest-benchmark suites and `python -m bench`, which runs them and prints the tables."""
