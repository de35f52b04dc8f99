"""The entropy of the softmax of rows of logits, and its derivatives.

With the distances `D = max(z) - z`, their mean `A` and the sum R of `exp(-D)` over all but one maximal entry, the
entropy is `log1p(R) + A`, a sum of terms of one sign, and its gradient is `p * (D - A)`.
"""

from typing import Any

from stable_softmax._libraries.standard import Library
from stable_softmax._maths.derivatives import with_gradients
from stable_softmax._maths.exponentials import difference, exponentials_below
from stable_softmax._maths.normalization import covariance_product, softmax
from stable_softmax._maths.sums import accurate_sum, sum_of_products, sum_without_maximum

# Stands for an infinite distance, which a probability of 0 could meet.
_FARTHEST = 1e4


def _distances(lib: Library, logits: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """Return the maximum, and the distance of each logit below it."""
    maximum = lib.maximum(logits, axes)
    top = lib.xp.where(lib.xp.isfinite(maximum), maximum, 0)
    return maximum, lib.clip(-difference(lib, logits, top), None, _FARTHEST)


def _entropy(lib: Library, logits: Any, axes: tuple[int, ...]) -> Any:
    return _entropy_and_mean(lib, logits, axes)[0]


def _entropy_and_mean(lib: Library, logits: Any, axes: tuple[int, ...]) -> tuple[Any, Any, Any]:
    maximum, distances = _distances(lib, logits, axes)
    exponentials = exponentials_below(lib, logits, maximum, axes)
    sum_of_distances = sum_of_products(lib, exponentials, distances, axes)
    rest = sum_without_maximum(lib, exponentials, axes)
    mean = sum_of_distances / (1 + rest)
    return lib.nan_where(~lib.xp.isfinite(maximum), lib.xp.log1p(rest) + mean), distances, mean


def _entropy_and_gradient(lib: Library, logits: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    entropy, distances, mean = _entropy_and_mean(lib, logits, axes)
    return entropy, softmax(lib, logits, axes=axes) * (distances - mean)


def _hessian_product(lib: Library, vectors: tuple[Any], logits: Any, axes: tuple[int, ...]) -> tuple[Any]:
    p, (_, distances) = softmax(lib, logits, axes=axes), _distances(lib, logits, axes)
    slopes = covariance_product(lib, vectors[0], logits, axes)
    mean = sum_of_products(lib, p, distances, axes)
    return (slopes * (distances - mean - 1) - p * accurate_sum(lib, slopes * distances, axes),)


#: The entropy, and with it its gradient.
entropy, entropy_and_gradient = with_gradients(_entropy, _entropy_and_gradient, _hessian_product, variables=1)
