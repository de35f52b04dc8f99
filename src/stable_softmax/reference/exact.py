"""Softmax, cross-entropy and gradient from their definitions, in ball arithmetic with a proven error bound.

Nothing here is tuned for floating-point accuracy: the precision is raised until the definition itself gives enough
digits. Formulas that are tuned can therefore be checked against it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from flint import arb, ctx
from numpy.typing import NDArray

_FIRST_PRECISION = 128
_LAST_PRECISION = 1 << 15
_ACCURATE_BITS = 110
# Far below the smallest subnormal number of float64, 2**-1074.
_NEGLIGIBLE = arb(2) ** -1200


class Exact(NamedTuple):
    """Exact values, each as the sum of two doubles: the nearest one, and the remainder."""

    nearest: NDArray[np.float64]
    lacking: NDArray[np.float64]

    def error(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return the absolute errors of `values`, of at most double precision; 0 where both are the same infinity."""
        values = values.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            errors = np.abs((values - self.nearest) - self.lacking)
        return np.where(values == self.nearest, np.abs(self.lacking), errors)


class ExactRows(NamedTuple):
    """The exact results of rows of logits (examples, classes) and class ids (examples,)."""

    softmax: Exact
    log_softmax: Exact
    logsumexp: Exact
    crossentropy: Exact
    gradient: Exact


def exact_rows(logits: NDArray[Any], class_ids: NDArray[Any], divisor: int = 1) -> ExactRows:
    """Evaluate the definitions row by row; the gradient is that of the loss divided by `divisor`.

    Logits may be -inf, but not all logits of a row; they must not be NaN or +inf.
    """
    rows = [_exact_row(row.astype(np.float64), int(y), divisor) for row, y in zip(logits, class_ids, strict=True)]
    return ExactRows(*(Exact(*map(np.asarray, zip(*quantity, strict=True))) for quantity in zip(*rows, strict=True)))


def _exact_row(row: NDArray[np.float64], class_id: int, divisor: int) -> tuple[tuple[Any, Any], ...]:
    distinct, places, counts = np.unique(row, return_inverse=True, return_counts=True)
    label = int(places[class_id])

    def definitions() -> list[list[arb]]:
        return _definitions([arb(z) for z in distinct.tolist()], counts.tolist(), label, divisor)

    softmax, log_softmax, gradient, of_row = evaluated(definitions)
    gradient = gradient[:, places]
    gradient[:, class_id] = of_row[:, 2]
    return tuple(softmax[:, places]), tuple(log_softmax[:, places]), *map(tuple, of_row.T[:2]), tuple(gradient)


def evaluated(definitions: Callable[[], list[list[arb]]]) -> list[NDArray[np.float64]]:
    """Return for each list of exact numbers a row of the nearest doubles and a row of remainders.

    The definitions are evaluated with more and more digits, until all numbers are accurate.
    """
    precision = _FIRST_PRECISION
    while True:
        with ctx.workprec(precision):
            results = definitions()
            if precision >= _LAST_PRECISION or all(map(_is_accurate, _finite(results))):
                return [_split(result) for result in results]
        precision *= 2


def _definitions(distinct: list[arb], counts: list[int], label: int, divisor: int) -> list[list[arb]]:
    """Evaluate the definitions for the distinct logits of a row, each of which occurs `counts` times."""
    # The exponentials of the logits themselves would overflow even here for logits such as 1e300.
    top = distinct[-1]
    exponentials = [(z - top).exp() for z in distinct]
    total = sum((n * e for n, e in zip(counts, exponentials, strict=True)), arb(0))
    log_total = top + total.log()
    probabilities = [e / total for e in exponentials]
    log_probabilities = [z - log_total for z in distinct]
    return [
        probabilities,
        log_probabilities,
        [p / divisor for p in probabilities],
        [log_total, -log_probabilities[label], (probabilities[label] - 1) / divisor],
    ]


def _finite(results: list[list[arb]]) -> list[arb]:
    return [x for result in results for x in result if x.mid().is_finite()]


def _is_accurate(x: arb) -> bool:
    return bool(x.rel_accuracy_bits() >= _ACCURATE_BITS or abs(x) < _NEGLIGIBLE)


def _split(exact: list[arb]) -> NDArray[np.float64]:
    """Return a row of nearest doubles and a row of remainders."""
    nearest = [_double(x) for x in exact]
    lacking = [_double(x - hi) if abs(hi) < np.inf else 0.0 for x, hi in zip(exact, nearest, strict=True)]
    return np.asarray([nearest, lacking])


def _double(x: arb) -> float:
    return 0.0 if abs(x) < _NEGLIGIBLE else float(x.mid())
