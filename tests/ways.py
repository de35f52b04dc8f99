"""The ways to one number, such as whole, in blocks, or merged from parts, on rows that are hard; and what is right.

Each way takes logits (examples, classes) and class ids. What is right comes from the plainest formulas in float64.
"""

from functools import partial, reduce
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from merged_losses import merged_by_collectives

import stable_softmax
from stable_softmax import softmax_statistics
from stable_softmax.reference.bounds import representable

CLASSES = 12
INF, NAN = np.inf, np.nan


class Row(NamedTuple):
    """Logits with a label."""

    name: str
    logits: Any
    label: int


def rows(dtype):
    """Return rows that are hard to cut, merge or scale: ties, infinities, the ends of the dtype, and lost rows."""
    rng, largest = np.random.default_rng(6), _largest(dtype)
    confident = {"float16": 11, "float64": 300}.get(dtype, 60)
    drawn = rng.normal(size=CLASSES) * 2
    listed = [
        Row("ordinary", drawn, 3),
        Row("the label leads by far", _at(drawn, {7: confident}), 7),
        Row("another class leads by far", _at(drawn, {2: confident}), 7),
        Row("zeros, first", _at(0, {}), 0),
        Row("zeros, last", _at(0, {}), 11),
        Row("two lead in one part", _at(drawn, {2: 8, 3: 8}), 2),
        Row("two lead in two parts, the label first", _at(drawn, {2: 8, 9: 8}), 2),
        Row("two lead in two parts, the label last", _at(drawn, {2: 8, 9: 8}), 9),
        Row("two lead in two parts, the label is another", _at(drawn, {2: 8, 9: 8}), 1),
        Row("two lead by far, at the edge of a unit", _at(-40, {0: 4, 6: 4}), 0),
        Row("two lead just below the edge of a unit", _at(-3, {5: -1e-9, 6: -1e-9}), 5),
        Row("one leads just below the edge of a unit", _at(-3, {5: -3e-9, 6: -1e-9}), 5),
        Row("tiny", _at(0, {i: 1e-40 * i for i in range(CLASSES)}), 4),
        Row("label of -inf", _at(drawn, {4: -INF}), 4),
        Row("label of -inf, alone in its part", _at(drawn, dict.fromkeys(range(6), -INF)), 0),
        Row("label of -inf beside a tie", _at(drawn, {0: -INF, 2: 8, 9: 8}), 0),
        Row("-inf in the other part", _at(drawn, dict.fromkeys(range(6), -INF)), 8),
        Row("nothing but the label", _at(-INF, {8: 1}), 8),
        Row("label far below", _at(drawn, {1: -1.2 * confident - 60}), 1),
        Row("ends in one part", _at(0, {0: 0.6 * largest, 1: -0.6 * largest}), 1),
        Row("ends in two parts", _at(0, {1: 0.6 * largest, 8: -0.6 * largest}), 8),
        Row("all at the upper end", _at(largest, {}), 5),
        Row("all at the lower end", _at(-largest, {}), 6),
        *(Row(f"rounded {i}", np.round(rng.normal(size=CLASSES) * 2), i) for i in range(CLASSES)),
        Row("NaN", _at(drawn, {3: NAN}), 8),
        Row("+inf", _at(drawn, {3: INF}), 8),
        Row("+inf at the label", _at(drawn, {3: INF}), 3),
        Row("+inf in both parts", _at(drawn, {3: INF, 9: INF}), 3),
        Row("NaN and infinities", _at(drawn, {1: NAN, 3: INF, 9: -INF}), 8),
        Row("nothing but -inf", _at(-INF, {}), 3),
    ]
    return [row._replace(logits=representable(row.logits, dtype)) for row in listed]


def _at(logits, entries):
    logits = np.broadcast_to(np.asarray(logits, float), (CLASSES,)).copy()
    for index, value in entries.items():
        logits[index] = value
    return logits


def _largest(dtype):
    return {"bfloat16": 3.3e38, "float16": 65504.0}.get(dtype) or float(np.finfo(dtype).max)


class Right(NamedTuple):
    """Loss, gradient and the Hessian times a vector, of each example, with the magnitudes of the terms of the last."""

    loss: Any
    gradient: Any
    product: Any
    magnitude: Any


def right(logits, labels, vectors):
    """Return what the plainest formulas give; no sum of theirs cancels."""
    with np.errstate(all="ignore"):
        return Right(*map(np.stack, zip(*map(_right_of_row, logits, labels, vectors), strict=True)))


def _right_of_row(z, y, v):
    top = int(np.argmax(z))
    if not np.isfinite(z[top]):
        return np.asarray(NAN), *[np.full(z.shape, NAN)] * 3
    e = np.exp(z - z[top])
    others = np.where(np.arange(len(z)) == y, 0, e)
    p, rest = e / e.sum(), others.sum()
    loss = np.log1p(rest / e[y]) if e[y] > 1e-200 else np.log(e.sum()) - (z[y] - z[top])
    gradient = np.where(np.arange(len(z)) == y, -rest / e.sum(), p)
    w = v - v[top]
    return loss, gradient, p * (w - p @ w), p * (np.abs(w) + p @ np.abs(w))


def cut(logits, labels, edges):
    return [softmax_statistics(logits[:, a:b], labels, first_class=a) for a, b in pairwise(edges)]


def merged(parts):
    return reduce(lambda first, second: first.merge(second), parts)


def halves(logits, labels):
    return merged(cut(logits, labels, (0, CLASSES // 2, CLASSES)))


def backwards_with_empty_parts(logits, labels):
    return merged(cut(logits, labels, (0, 0, 5, 5, 9, CLASSES, CLASSES))[::-1])


def class_by_class(logits, labels):
    return merged(cut(logits, labels, range(CLASSES + 1)))


def tree(logits, labels):
    first, second, third, fourth = cut(logits, labels, (0, 1, 6, 8, CLASSES))
    return second.merge(fourth).merge(third.merge(first))


def collectives(logits, labels, xp):
    return merged_by_collectives(cut(logits, labels, (0, 3, 6, 10, CLASSES)), xp.maximum)


#: Ways of merging parts: (logits, labels) -> statistics.
MERGES = {f.__name__: f for f in (halves, backwards_with_empty_parts, class_by_class, tree, collectives)}


def statistics(name, library):
    """Return a way of merging on a backend."""
    return partial(MERGES[name], xp=library.xp) if name == "collectives" else MERGES[name]


def projected(logits, labels, block_size, **options):
    """Return the losses of logits that are features, projected by the identity."""
    xp = logits.__array_namespace__() if hasattr(logits, "__array_namespace__") else None
    identity = (xp or __import__("torch")).eye(CLASSES, dtype=logits.dtype)
    return stable_softmax.linear_softmax_crossentropy(
        logits, identity, labels, block_size=block_size, reduction="none", **options
    )


def assert_right(values, expected, dtype, names, magnitude=None):
    """Check each row: relative errors of some units, or of the magnitude, in the dtypes of the work and the result."""
    values, working = np.asarray(values, np.float64), "float64" if dtype == "float64" else "float32"
    eps = float(np.finfo(working).eps)
    with np.errstate(all="ignore"):
        expected = np.where(np.abs(expected) > _largest(dtype), np.copysign(np.inf, expected), expected)
        size = np.abs(expected) if magnitude is None else magnitude
        rounding = {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(dtype, 0) * np.abs(expected)
        smallest = 2.0**-24 if dtype == "float16" else float(np.finfo(working).smallest_normal)
        allowed = 200 * eps * size + rounding + 4 * smallest
        bad = ~((values == expected) | (np.isnan(values) & np.isnan(expected)) | (np.abs(values - expected) <= allowed))
    wrong = [name for name, row in zip(names, bad.reshape(len(names), -1), strict=True) if row.any()]
    i = names.index(wrong[0]) if wrong else 0
    assert not wrong, f"{wrong}; {wrong[0]}: {values[i]} for {expected[i]}"


class Table:
    """Rows in a dtype of a backend, with what is right for each."""

    def __init__(self, library, dtype, finite=False):
        self.dtype = dtype
        given = [row for row in rows(dtype) if not finite or np.all(np.isfinite(row.logits))]
        self.names = [row.name for row in given]
        self.logits = np.stack([row.logits for row in given])
        self.labels = np.asarray([row.label for row in given])
        self.vectors = np.cos(np.arange(self.logits.size).reshape(self.logits.shape))
        self.right = right(self.logits, self.labels, self.vectors)
        self.z, self.y = library.logits(self.logits, dtype), library.array(self.labels)
        self.v = library.logits(self.vectors, dtype)
        if dtype in ("float16", "bfloat16"):  # rounded
            self.right = right(self.logits, self.labels, np.asarray(library.numpy(self.v), np.float64))

    def check(self, values, field, dtype=None, scale=1, of_rows=False):
        magnitude = self.right.magnitude if field == "product" else None
        if of_rows:
            magnitude = np.max(magnitude, axis=1, keepdims=True)
        assert_right(values, getattr(self.right, field) * scale, dtype or self.dtype, self.names, magnitude)


def working(dtype):
    return "float64" if dtype == "float64" else "float32"
