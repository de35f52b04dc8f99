"""Functions with the names and arguments of other libraries: to switch, change the import.

Each module stands for one of them, and is imported only when it is asked for: `torch`, `optax`, `jax_nn` and
`scipy_special`. docs/how-to/switch.md says what differs.
"""
