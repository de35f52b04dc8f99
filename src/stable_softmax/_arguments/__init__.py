"""The arguments of the public functions, which are checked here before any computation."""
