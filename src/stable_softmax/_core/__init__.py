"""What the packages above share: layouts, criteria, kernels and trees of arrays."""
