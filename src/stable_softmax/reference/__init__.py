"""Exact arithmetic and the error bound, for the report, the audit, tests and benchmarks: private to the project."""
