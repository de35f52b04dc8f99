"""How the time for each element grows with the number of elements and with the number of classes."""

from collections.abc import Iterator

from benchmarks.examples import examples_of
from benchmarks.forms import call_of
from benchmarks.progress import tell
from benchmarks.tables import Row, Section, number
from benchmarks.timing import medians

OPERATIONS = ("softmax", "value and gradient")
# Enough to leave all caches.
ELEMENTS = 4_000_000
CLASSES = (2, 4, 10, 30, 100, 1000, 10_000, 100_000, 1_000_000)
COLUMNS = {
    "elements": number("elements", ","),
    "classes": number("classes", ","),
    **{f"{operation}, ns/element": number(operation) for operation in OPERATIONS},
}


def sections(quick: bool, large: bool) -> Iterator[Section]:
    """Yield a table by elements and one by classes."""
    exponents = range(4, 10 if large else 8 if quick else 9)
    by_elements = [(10**exponent, classes) for classes in (10, 1000) for exponent in exponents]
    by_classes = [(ELEMENTS, classes) for classes in (CLASSES[::2] if quick else CLASSES)]
    for title, sizes in (("elements", by_elements), ("classes", by_classes)):
        yield Section(f"NumPy, float32, growth with {title}", COLUMNS, [_row(*size) for size in sizes])


def _row(elements: int, classes: int) -> Row:
    tell(f"growth: {elements:,} elements in {classes:,} classes")
    examples = examples_of((elements // classes, classes))
    # One after the other: the results of both would not fit into memory together.
    times = {operation: medians([call_of("ours", operation, *examples)], 0.3)[0] for operation in OPERATIONS}
    scale = 1e9 / examples[0].size
    return {"elements": elements, "classes": classes} | {name: time * scale for name, time in times.items()}
