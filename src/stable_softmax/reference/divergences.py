"""Entropies and divergences from their definitions, in the arithmetic of `exact`, and the bound of their errors."""

import math
from typing import Any, NamedTuple

import numpy as np
from flint import arb
from numpy.typing import NDArray

from stable_softmax.reference.bounds import PRECISIONS, Precision
from stable_softmax.reference.exact import Exact, evaluated


class Scaled(NamedTuple):
    """Exact values, and the magnitudes of the terms that they are sums of, which errors are relative to."""

    exact: Exact
    magnitude: NDArray[np.float64]


class ExactDivergences(NamedTuple):
    """The exact results of rows of logits and reference logits (examples, classes)."""

    entropy: Scaled
    entropy_gradient: Scaled
    kl: Scaled
    kl_gradient: Scaled
    kl_reference_gradient: Scaled
    js: Scaled
    js_gradient: Scaled
    js_reference_gradient: Scaled


def exact_divergences(logits: NDArray[Any], reference_logits: NDArray[Any], weight: float = 0.5) -> ExactDivergences:
    """Evaluate the definitions row by row; logits are finite."""
    rows = [_exact_row(z, w, weight) for z, w in zip(logits, reference_logits, strict=True)]
    quantities = []
    for pairs in zip(*rows, strict=True):
        values, magnitudes = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
        quantities.append(Scaled(Exact(values[:, 0], values[:, 1]), magnitudes))
    return ExactDivergences(*quantities)


def exact_kl_divergence(logits: NDArray[Any], reference_logits: NDArray[Any]) -> Exact:
    """Evaluate the KL divergence of one row alone, which is finite; logits may be -inf where it stays so."""
    pairs = np.stack([logits, reference_logits], axis=1).astype(np.float64)
    distinct, counts = np.unique(pairs, axis=0, return_counts=True)

    def definition() -> list[list[arb]]:
        z, w = ([arb(x) for x in column] for column in distinct.T.tolist())
        log_p, log_q = _log_softmax(z, counts.tolist()), _log_softmax(w, counts.tolist())
        terms = zip(counts.tolist(), log_p, log_q, strict=True)
        return [[sum((n * b.exp() * (b - a) for n, a, b in terms if b.is_finite()), arb(0))]]

    (result,) = evaluated(definition)
    return Exact(result[0], result[1])


def _exact_row(z: NDArray[Any], w: NDArray[Any], weight: float) -> list[tuple[Any, Any]]:
    pairs = np.stack([z, w], axis=1).astype(np.float64)
    distinct, places, counts = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)

    def definitions() -> list[list[arb]]:
        own, other = ([arb(float(x)) for x in column] for column in distinct.T)
        return _definitions(own, other, counts.tolist(), arb(weight))

    *by_class, of_row = evaluated(definitions)
    gradients, magnitudes = by_class[:5], [row[0][places.ravel()] for row in by_class[5:]]
    entropy, kl, js = of_row.T
    entropy_gradient, *others = (
        (row[:, places.ravel()], magnitude) for row, magnitude in zip(gradients, magnitudes, strict=True)
    )
    of_rows = [(value, abs(value[0])) for value in (entropy, kl, js)]
    return [of_rows[0], entropy_gradient, of_rows[1], *others[:2], of_rows[2], *others[2:]]


def _definitions(z: list[arb], w: list[arb], counts: list[int], weight: arb) -> list[list[arb]]:
    def mean(weights: list[arb], values: list[arb]) -> arb:
        terms = (n * a * b for n, a, b in zip(counts, weights, values, strict=True))
        return sum(terms, arb(0))

    log_p, log_q = _log_softmax(z, counts), _log_softmax(w, counts)
    p, q = [x.exp() for x in log_p], [x.exp() for x in log_q]
    log_m = [(weight * b + (1 - weight) * a).log() for a, b in zip(p, q, strict=True)]
    entropy = -mean(p, log_p)
    ratios = [a - b for a, b in zip(log_p, log_q, strict=True)]
    kl = -mean(q, ratios)
    over_p = [m - x for m, x in zip(log_m, log_p, strict=True)]
    over_q = [m - x for m, x in zip(log_m, log_q, strict=True)]
    kl_p, kl_q = -mean(p, over_p), -mean(q, over_q)
    deviations = [ratio + kl for ratio in ratios]
    spread = mean(q, [abs(x) for x in deviations])
    spread_p, spread_q = mean(p, [abs(x) for x in over_p]), mean(q, [abs(x) for x in over_q])
    top = max(z, key=float)
    distances = [top - x for x in z]
    middle = mean(p, distances)
    # What the error of log(p / q) is relative to.
    apart = min(kl + spread, arb(1), key=float)
    own, other = (1 - weight), weight
    return [
        [a * (d - middle) for a, d in zip(p, distances, strict=True)],
        [a - b for a, b in zip(p, q, strict=True)],
        [-b * x for b, x in zip(q, deviations, strict=True)],
        [-own * a * (x + kl_p) for a, x in zip(p, over_p, strict=True)],
        [-other * b * (x + kl_q) for b, x in zip(q, over_q, strict=True)],
        [a * (d + middle) for a, d in zip(p, distances, strict=True)],
        [
            min(a + b, max(a, b, key=float) * (abs(r) + 2 * kl + spread), key=float)
            for a, b, r in zip(p, q, ratios, strict=True)
        ],
        [b * (abs(x) + spread) for b, x in zip(q, deviations, strict=True)],
        [own * a * (abs(x) + spread_p + apart) for a, x in zip(p, over_p, strict=True)],
        [other * b * (abs(x) + spread_q + apart) for b, x in zip(q, over_q, strict=True)],
        [entropy, kl, other * kl_q + own * kl_p],
    ]


def _log_softmax(logits: list[arb], counts: list[int]) -> list[arb]:
    # Exponentials of large logits would overflow even here.
    shift = max(logits, key=float)
    total = sum((n * (x - shift).exp() for n, x in zip(counts, logits, strict=True)), arb(0))
    return [x - shift - total.log() for x in logits]


def divergence_units(logits: NDArray[Any], reference_logits: NDArray[Any], working: Precision) -> NDArray[np.float64]:
    """Return for each row the relative error that is allowed, as a number of units of roundoff."""
    range_of_exponents = -math.log(working.smallest_normal)
    with np.errstate(over="ignore"):
        spans = [
            np.minimum(np.ptp(rows.astype(np.float64), axis=1), range_of_exponents)
            for rows in (logits, reference_logits)
        ]
    return np.asarray(2 * (spans[0] + spans[1]) + 4 * math.log2(logits.shape[1]) + 32)


def divergence_shares(
    values: NDArray[Any], scaled: Scaled, logits: NDArray[Any], reference_logits: NDArray[Any], dtype: str
) -> NDArray[np.float64]:
    """Return each error as a share of the documented bound; `dtype` is that of the result."""
    working, result = PRECISIONS["float64" if dtype == "float64" else "float32"], PRECISIONS[dtype]
    units = divergence_units(logits, reference_logits, working)
    size, exact = scaled.magnitude, scaled.exact
    if values.ndim == 2:
        units = units[:, None]
    # Of classes whose probability underflows.
    tiny = logits.shape[1] * sum(np.ptp(rows.astype(np.float64), axis=1) + 1 for rows in (logits, reference_logits))
    tiny = tiny[:, None] if values.ndim == 2 else tiny
    allowed = units * working.unit_roundoff * size + tiny * working.smallest_normal
    if result is not working:
        allowed += result.unit_roundoff * np.maximum(np.abs(exact.nearest) + allowed, result.smallest_normal)
    errors = exact.error(values)
    with np.errstate(invalid="ignore"):
        return np.where(errors == 0, 0, errors / allowed)
