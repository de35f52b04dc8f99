"""The entropy of the softmax of rows of logits, and its derivatives.

With the distances `D = max(z) - z`, their mean `A` and the sum R of `exp(-D)` over all but one maximal entry, the
entropy is `log1p(R) + A`, a sum of terms of one sign, and its gradient is `p * (D - A)`.
"""

from typing import Any, NamedTuple

from stable_softmax._libraries.standard import Library
from stable_softmax._maths.derivatives import with_gradients
from stable_softmax._maths.exponentials import difference, for_each_row
from stable_softmax._maths.normalization import covariance_product, softmax
from stable_softmax._maths.sums import accurate_sum, sum_of_products, sum_without_maximum

# Stands for an infinite distance, which a probability of 0 could meet.
_FARTHEST = 1e4


class _Parts(NamedTuple):
    """What the entropy and its gradient are made of; NaN in rows without a finite maximum."""

    entropy: Any
    distances: Any
    #: The mean of the distances.
    mean: Any


def _parts(lib: Library, logits: Any, axes: tuple[int, ...]) -> _Parts:
    differences = difference(lib, logits, lib.maximum(logits, axes))
    exponentials, distances = lib.xp.exp(differences), lib.clip(-differences, None, _FARTHEST)
    total = sum_of_products(lib, exponentials, distances, axes)
    rest = sum_without_maximum(lib, exponentials, axes)  # last, since it may overwrite them
    mean = total / (1 + rest)
    return _Parts(for_each_row(lib, lib.xp.log1p, rest, axes=axes) + mean, distances, mean)


def _entropy(lib: Library, logits: Any, axes: tuple[int, ...]) -> Any:
    return _parts(lib, logits, axes).entropy


def _entropy_and_gradient(lib: Library, logits: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    parts = _parts(lib, logits, axes)
    return parts.entropy, softmax(lib, logits, axes=axes) * (parts.distances - parts.mean)


def _hessian_product(lib: Library, vectors: tuple[Any], logits: Any, axes: tuple[int, ...]) -> tuple[Any]:
    parts, p = _parts(lib, logits, axes), softmax(lib, logits, axes=axes)
    slopes = covariance_product(lib, vectors[0], logits, axes)
    mean = accurate_sum(lib, slopes * parts.distances, axes)
    return (slopes * (parts.distances - parts.mean - 1) - p * mean,)


#: The entropy, and with it its gradient.
entropy, entropy_and_gradient = with_gradients(_entropy, _entropy_and_gradient, _hessian_product, variables=1)
