"""Large NumPy arrays, on one thread: against SciPy, PyTorch, scikit-learn and the notebook's formulas."""

from collections.abc import Iterator

from benchmarks.examples import examples_of
from benchmarks.forms import call_of, name_of
from benchmarks.work import Work

SHAPES = ((65536, 10), (1000000, 10), (16384, 100), (4096, 1000), (256, 50257))
QUICK_SHAPES = ((65536, 10), (4096, 1000))

# The ratio to reach by the number of classes.
SOFTMAX_TARGETS = {10: 0.35, 100: 0.85, 1000: 0.75, 50257: 0.65}
LOG_SOFTMAX_TARGETS = {10: 0.35, 100: 1.0, 1000: 0.9, 50257: 0.75}
LOGSUMEXP_TARGETS = {10: 0.35, 100: 0.75, 1000: 0.75, 50257: 0.75}
NOTEBOOK_TARGETS = {10: 0.25, 100: 0.55, 1000: 0.5, 50257: 0.45}
PYTORCH_TARGETS = {10: 1.0, 100: 1.6, 1000: 1.6, 50257: 1.0}
BOTH = "value and gradient"

# Each table's operations, peers, and ratios to reach.
TABLES = {
    "NumPy, normalizations": (
        ("softmax", "scipy", SOFTMAX_TARGETS),
        ("log_softmax", "scipy", LOG_SOFTMAX_TARGETS),
        ("logsumexp", "scipy", LOGSUMEXP_TARGETS),
        ("softmax", "pytorch", PYTORCH_TARGETS),
        ("log_softmax", "pytorch", PYTORCH_TARGETS),
    ),
    "NumPy, value and gradient": (
        (BOTH, "notebook", NOTEBOOK_TARGETS),
        (BOTH, "scikit_learn", dict.fromkeys(NOTEBOOK_TARGETS, 0.6)),
        (BOTH, "pytorch", {10: 0.4, 100: 1.0, 1000: 1.0, 50257: 1.0}),
    ),
}


def works(quick: bool) -> Iterator[Work]:
    """Yield all comparisons."""
    for table, comparisons in TABLES.items():
        for shape in QUICK_SHAPES if quick else SHAPES:
            for dtype in ("float32", "float64"):
                yield from _on_examples(table, comparisons, shape, dtype)


def _on_examples(table, comparisons, shape, dtype):
    examples = examples_of(shape, dtype)
    for operation, peer, targets in comparisons:
        ours, theirs = (call_of(library, operation, *examples) for library in ("ours", peer))
        yield Work(table, operation, shape, dtype, name_of(peer), targets[shape[1]], ours, theirs)
