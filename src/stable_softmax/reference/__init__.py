"""Exact arithmetic and the error bound, for the commands, tests and benchmarks: private to the project."""
