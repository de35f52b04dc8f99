"""Instructions for each element, counted by Valgrind: these do not depend on what else the machine does."""

import re
from collections.abc import Iterator

from benchmarks import fresh
from benchmarks.growth import OPERATIONS
from benchmarks.progress import tell
from benchmarks.tables import Row, Section, number, shape, text

SHAPES = ((4096, 10), (256, 1000))
TIMES = 10
CALLGRIND = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
COLUMNS = {
    "operation": text("operation"),
    "shape": shape,
    "instructions/element": number("instructions", ".1f"),
    # Valgrind hides those that it cannot emulate, AVX-512 among them.
    "NumPy's vectors under Valgrind": text("vectors"),
}


def sections(quick: bool) -> Iterator[Section]:
    """Yield the table."""
    rows = [row for size in (SHAPES[:1] if quick else SHAPES) for row in _rows(size)]
    yield Section("NumPy, float32, instructions", COLUMNS, rows)


def _rows(shape: tuple[int, int]) -> Iterator[Row]:
    tell(f"instructions: {shape}, to start with")
    start, vectors = _counted(OPERATIONS[0], 0, shape)
    for operation in OPERATIONS:
        tell(f"instructions: {operation} {shape}")
        count, _ = _counted(operation, TIMES, shape)
        each = (count - start) / TIMES / (shape[0] * shape[1])
        yield {"operation": operation, "shape": shape, "instructions": each, "vectors": vectors}


def _counted(operation: str, times: int, shape: tuple[int, int]) -> tuple[int, str]:
    """Return the instructions of a process that runs the operation so many times, and NumPy's vectors there."""
    done = fresh.run("benchmarks.repeated", operation, str(times), *map(str, shape), under=CALLGRIND)
    collected = re.search(r"Collected : (\d+)", done.stderr)
    if collected is None:
        raise RuntimeError(f"callgrind printed no count: {done.stderr}")
    return int(collected[1]), done.stdout.strip()
