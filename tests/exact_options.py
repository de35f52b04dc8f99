"""The loss with all its options, its derivatives, and softmax with `where`, from their definitions in ball arithmetic.

Each result comes with the magnitudes of the terms that it is a sum of: the scale of the error that is allowed.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from flint import arb, ctx

from stable_softmax.reference.bounds import PRECISIONS
from stable_softmax.reference.exact import Exact

# Far below the smallest subnormal number of float64, 2**-1074.
NEGLIGIBLE = arb(2) ** -1200
ZERO, INFINITY = arb(0), arb("inf")


class Scaled(NamedTuple):
    """Exact values, with what the errors of computed ones may be relative to."""

    exact: Exact
    #: The sum of the magnitudes of the terms.
    magnitudes: Any
    #: How an error of logsumexp comes through, which is relative to the largest logit.
    by_logsumexp: Any
    #: What a probability is multiplied by, which may have been too small for a normal number.
    factor: Any

    def shares(self, values, spans, classes, dtype, more_units=0, divisor=1):
        """Return the errors as shares of what is allowed: at most 1 where the contract holds."""
        working, result = PRECISIONS["float64" if dtype == "float64" else "float32"], PRECISIONS[dtype]
        spans = np.minimum(spans, -math.log(working.smallest_normal))
        units = spans + 2 * math.log2(classes) + 16 + more_units
        units = units.reshape(-1, *[1] * (values.ndim - 1))
        allowed = (units * self.magnitudes + 32 * self.by_logsumexp) * working.unit_roundoff / divisor
        allowed += classes * working.smallest_normal * np.maximum(1, self.factor / divisor)
        exact = self.exact if divisor == 1 else Exact(self.exact.nearest / divisor, self.exact.lacking / divisor)
        if result is not working:
            allowed += result.unit_roundoff * np.maximum(np.abs(exact.nearest) + allowed, result.smallest_normal)
        errors = exact.error(values)
        same = (errors == 0) | np.isposinf(allowed) & (values == exact.nearest)
        with np.errstate(invalid="ignore"):
            return np.where(same, 0, errors / allowed)


class ExactResults(NamedTuple):
    """The exact results of each example, of shape (examples,) or (examples, classes)."""

    loss: Scaled
    gradient: Scaled
    product: Scaled
    diagonal: Scaled
    softmax: Scaled
    log_softmax: Scaled
    logsumexp: Scaled
    #: The largest distance from the maximum, of the logits that are left and not -inf.
    spans: Any


def exact_results(case, vector):
    """Evaluate the definitions for each example whose logits, those that `where` keeps, are finite or -inf."""
    where = np.broadcast_to(case.option("where", np.asarray(True)), case.logits.shape)
    weights = case.option("class_weights", np.ones(where.shape[1])).tolist()
    numbers = case.option("label_smoothing", 0.0), case.option("z_loss", 0.0)
    rows, spans = [], []
    examples = case.option("example_weights", np.ones(len(where)))
    for logits, answer, left, along, example in zip(
        case.logits, case.answers, where, vector.tolist(), examples.tolist(), strict=True
    ):
        seen = logits[left & (logits > -np.inf)]
        if example == 0 or (answer.ndim == 0 and answer == case.option("ignore_index")):
            rows.append(_ignored(len(along)))
            spans.append(0.0)
        else:
            spans.append(np.ptp(seen))
            # What the largest probability lacks to 1 is small by less than 1.5 bits for each nat.
            with ctx.workprec(400 + round(3 * spans[-1])):
                results = _results(logits.tolist(), answer, left.tolist(), weights, along, *numbers)
                rows.append((*(_times(example, result) for result in results[:4]), *results[4:]))
    quantities = []
    for quantity in zip(*rows, strict=True):
        exact, *scales = (np.asarray(part) for part in zip(*quantity, strict=True))
        nearest = _doubles(exact)
        with ctx.workprec(4000):
            lacking = _doubles(np.where(np.isinf(nearest), ZERO, exact - np.where(np.isinf(nearest), 0, nearest)))
        quantities.append(Scaled(Exact(nearest, lacking), *map(_doubles, scales)))
    return ExactResults(*quantities, np.asarray(spans))


def _times(weight, result):
    """Return a result with all that it comes with, times what its example counts."""
    return tuple([weight * a for a in part] if isinstance(part, list) else weight * part for part in result)


def _ignored(classes):
    scalar, row = (ZERO,) * 4, ([ZERO] * classes,) * 4
    return scalar, row, row, row, row, row, scalar


def _results(logits, answer, left, weights, vector, smoothing, z_loss):
    """Return each result as its value, its terms' magnitudes, what logsumexp's error does to it, and a factor."""
    classes = range(len(logits))
    present = [left[c] and logits[c] > -np.inf for c in classes]
    top = max(logits[c] for c in classes if present[c])
    exponentials = [(arb(logits[c]) - top).exp() if present[c] else ZERO for c in classes]
    total = _sum(exponentials)
    p = [e / total for e in exponentials]
    logsumexp = top + total.log()
    nll = [logsumexp - logits[c] if present[c] else INFINITY for c in classes]
    log_p = [-nll[c] if left[c] else -INFINITY for c in classes]
    # The largest of the two terms of logsumexp, but for small logits.
    size = arb(max(2.0, abs(top)))

    q = _targets(answer, left, weights, arb(smoothing))
    terms = [q[c] * nll[c] if q[c] != 0 else ZERO for c in classes]  # 0 * inf = 0
    penalty, slope = z_loss * logsumexp**2, 2 * z_loss * logsumexp
    steepness, steepest = _sum(q) + slope, _sum(map(abs, q)) + abs(slope)
    # At one class, the target and the probability may agree in all digits: there, 1 - p is what the others have.
    pivot = int(np.argmax([float(a.mid()) for a in q]))
    sizes = [steepest * p[c] + abs(q[c]) for c in classes]
    beside_q, beside_p = (_sum([abs(a[c]) for c in classes if c != pivot]) for a in (q, p))
    sizes[pivot] = (beside_q + abs(slope)) * p[pivot] + abs(q[pivot]) * beside_p

    # The Hessian of logsumexp maps constants to 0.
    centred = [arb(v) - vector[logits.index(top)] for v in vector]
    mean, spread = _dot(p, centred), _dot(p, map(abs, centred))
    along, length = _dot(p, map(arb, vector)), _dot(p, map(abs, vector))
    # 1 - p, which is what the others have.
    variances = [p[c] * _sum(p[:c] + p[c + 1 :]) for c in classes]
    bent = [p[c] * (abs(centred[c]) + spread) for c in classes]

    def constant(value):
        return [value] * len(p)

    return (
        (_sum(terms) + penalty, _sum(map(abs, terms)) + penalty, abs(slope) * size, steepest),
        ([steepness * p[c] - q[c] for c in classes], sizes, [2 * z_loss * size * a for a in p], constant(steepest)),
        (
            [steepness * p[c] * (centred[c] - mean) + 2 * z_loss * p[c] * along for c in classes],
            [steepest * bent[c] + 2 * z_loss * p[c] * length for c in classes],
            [2 * z_loss * size * a for a in bent],
            constant(steepest * 2 * max(map(abs, vector))),
        ),
        (
            [steepness * variances[c] + 2 * z_loss * p[c] ** 2 for c in classes],
            [steepest * variances[c] + 2 * z_loss * p[c] ** 2 for c in classes],
            [2 * z_loss * size * a for a in variances],
            constant(steepest),
        ),
        (p, p, constant(ZERO), constant(ZERO)),
        (log_p, list(map(abs, log_p)), constant(ZERO), constant(ZERO)),
        (logsumexp, ZERO, size, ZERO),
    )


def _targets(answer, left, weights, smoothing):
    share = smoothing / sum(left)
    if answer.ndim == 0:
        q = [share * w for w in weights]
        q[answer] += (1 - smoothing) * weights[answer]
    else:
        # What `where` excludes may be NaN.
        answers = [t if is_left else 0.0 for t, is_left in zip(answer.tolist(), left, strict=True)]
        q = [w * ((1 - smoothing) * t + share) for w, t in zip(weights, answers, strict=True)]
    return [arb(a) if is_left else ZERO for a, is_left in zip(q, left, strict=True)]


def _sum(terms):
    return sum(terms, ZERO)


def _dot(a, b):
    return _sum(x * y for x, y in zip(a, b, strict=True))


def _doubles(balls):
    """Return the nearest doubles of an array of balls, and make sure that each ball is small enough to have one."""

    def double(ball):
        if not ball.mid().is_finite():
            return float(ball.mid())
        # Zero, where terms cancel in full, has digits before the point only.
        assert ball.rel_accuracy_bits() > 110 or ball.rad() < NEGLIGIBLE or (0 in ball and ball.rad() < arb(2) ** -300)
        return 0.0 if abs(ball) < NEGLIGIBLE else float(ball.mid())

    return np.vectorize(double, otypes=[np.float64])(balls)
