"""`python -m benchmarks.repeated OPERATION TIMES LENGTH LENGTH`: what Valgrind runs, with few imports.

Prints the vector instructions that NumPy finds.
"""

import sys

from benchmarks.examples import examples_of
from benchmarks.forms import call_of
from benchmarks.machine import numpy_vectors


def main(operation: str, times: int, shape: tuple[int, int]) -> None:
    """Run the operation so many times, after one run of each operation, so that all processes import the same."""
    examples = examples_of(shape)
    for name in ("softmax", "value and gradient"):
        call_of("ours", name, *examples)()
    call = call_of("ours", operation, *examples)
    for _ in range(times):
        call()
    print(numpy_vectors())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), tuple(map(int, sys.argv[3:])))
