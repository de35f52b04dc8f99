"""How the large NumPy arrays' time falls with a second worker."""

from collections.abc import Iterator

import numpy as np

import stable_softmax
from benchmarks.examples import examples_of
from benchmarks.forms import call_of
from benchmarks.growth import OPERATIONS
from benchmarks.numpy_work import QUICK_SHAPES, SHAPES
from benchmarks.progress import tell
from benchmarks.tables import Row, Section, per_element, shape, text
from benchmarks.timing import compared

COLUMNS = {
    "operation": text("operation"),
    "shape": shape,
    "dtype": text("dtype"),
    "1 worker, ns/element": per_element("peer"),
    "2 workers": per_element("ours"),
    "ratio": lambda row: f"{row['ratio']:.2f}",
    "quartiles": lambda row: f"{row['low']:.2f}-{row['high']:.2f}",
    "same bits": lambda row: "[green]yes[/]" if row["same"] else "[red]no[/]",
}


def sections(quick: bool) -> Iterator[Section]:
    """Yield the table, if this version of the library has workers."""
    if not hasattr(stable_softmax, "set_workers"):
        yield Section("No workers: stable_softmax.set_workers is missing", COLUMNS, [])
        return
    shapes = QUICK_SHAPES if quick else SHAPES
    rows = [_row(operation, size, quick) for operation in OPERATIONS for size in shapes]
    yield Section("NumPy, two workers against one", COLUMNS, rows)


def _row(operation: str, shape: tuple[int, int], quick: bool) -> Row:
    tell(f"workers: {operation} {shape}")
    call = call_of("ours", operation, *examples_of(shape))
    one, two = (_with_workers(call, workers) for workers in (1, 2))
    result = compared(two, one, seconds=0.3 if quick else 1.5)
    same = _bits(one()) == _bits(two())
    return {"operation": operation, "shape": shape, "dtype": "float32", "same": same} | result._asdict()


def _with_workers(call, workers):
    def run():
        with stable_softmax.set_workers(workers):
            return call()

    return run


def _bits(result):
    arrays = result if isinstance(result, tuple) else (result,)
    return [np.asarray(array).tobytes() for array in arrays]
