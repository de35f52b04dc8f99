"""One small call on NumPy, where what comes before and after the arithmetic counts."""

from collections.abc import Iterator

from benchmarks.examples import examples_of
from benchmarks.forms import call_of, name_of, notebook, scipy
from benchmarks.work import Work

SHAPES = ((50, 10), (1, 10))

# Peer, its operations, and the ratio to reach, for some operations another one.
PEERS = (
    ("notebook", notebook.FORMS, 1.3, {"loss": 2.0, "gradient": 2.0, "Hessian product": 2.0}),
    ("scipy", scipy.FORMS, 1.2, {"logsumexp": 0.5}),
)


def works(quick: bool) -> Iterator[Work]:
    """Yield all comparisons."""
    for dtype in ("float64",) if quick else ("float32", "float64"):
        for shape in SHAPES:
            examples = examples_of(shape, dtype)
            for peer, operations, usual, targets in PEERS:
                for operation in operations:
                    calls = (call_of(library, operation, *examples) for library in ("ours", peer))
                    target = targets.get(operation, usual)
                    yield Work("NumPy, small calls", operation, shape, dtype, name_of(peer), target, *calls)
