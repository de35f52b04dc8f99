"""Peak memory beyond the arguments and the result, each operation in a fresh process."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import fresh
from benchmarks.examples import examples_of
from benchmarks.forms import call_of, name_of
from benchmarks.progress import tell
from benchmarks.tables import Row, Section, number, shape, text

# 1 GiB and 128 MiB of float32.
SHAPES = ((262144, 1024), (26843545, 10))
QUICK_SHAPES = ((32768, 1024), (3355443, 10))
LIBRARIES = {
    **dict.fromkeys(("softmax", "log_softmax", "logsumexp"), ("ours", "scipy", "pytorch")),
    **dict.fromkeys(("loss", "gradient"), ("ours", "notebook", "pytorch")),
    "value and gradient": ("ours", "notebook", "scikit_learn", "pytorch"),
}
PEERS = ("scipy", "notebook", "scikit_learn", "pytorch")


def sections(quick: bool) -> Iterator[Section]:
    """Yield the table."""
    columns = {"operation": text("operation"), "shape": shape}
    columns |= {name: number(name, ".0f") for name in ("logits", "result")} | {"ours": number("ours", ".1f")}
    columns |= {name_of(peer): number(peer, ".0f") for peer in PEERS}
    shapes = QUICK_SHAPES if quick else SHAPES
    rows = [_row(operation, size) for operation in LIBRARIES for size in shapes]
    yield Section("NumPy, float32, peak memory beyond the result, MiB", columns, rows)


def _row(operation: str, shape: tuple[int, int]) -> Row:
    row: Row = {"operation": operation, "shape": shape}
    for library in LIBRARIES[operation]:
        tell(f"memory: {operation} {shape} of {name_of(library)}")
        measured = json.loads(fresh.run("benchmarks.memory", library, operation, *map(str, shape)).stdout)
        row[library] = measured["peak"] - measured["result"]
        # Those of our own call, which comes first.
        row = measured | row
    return row


def _measure(library: str, operation: str, shape: tuple[int, int]) -> dict[str, float]:
    """Return the sizes of logits and result, and the peak above what was there before the call, in MiB."""
    # Imports, and thread pools if there are any.
    call_of(library, operation, *examples_of((4, shape[1])))()
    logits, class_ids = examples_of(shape)
    call = call_of(library, operation, logits, class_ids)
    # Linux: sets the peak to what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    result = call()
    peak = resident("VmHWM") - before
    return {"logits": logits.nbytes / 2**20, "result": _size(result) / 2**20, "peak": peak / 2**20}


def resident(name: str) -> int:
    """Return a line of the process's memory status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def _size(result: Any) -> int:
    return sum(map(_size, result)) if isinstance(result, tuple) else result.nbytes


if __name__ == "__main__":
    print(json.dumps(_measure(*sys.argv[1:3], tuple(map(int, sys.argv[3:])))))
