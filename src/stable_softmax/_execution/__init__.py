"""Runs kernels: on whole rows, in blocks that fit the processor's cache, on chunks, or in a sweep."""
