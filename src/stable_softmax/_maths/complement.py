"""The logarithm of `1 - p`, where `p` is the softmax of rows of logits, and its derivatives.

Where one class has more than half of the probability, `1 - p` is that of all others. With their largest logit m' and
the sum S of `exp(z - m')`, it is `R / (1 + R)` with `R = exp(m' - m) * S`.
"""

from typing import Any

from stable_softmax._libraries.differentiable import differentiable
from stable_softmax._libraries.standard import Library
from stable_softmax._maths.exponentials import difference
from stable_softmax._maths.normalization import softmax
from stable_softmax._maths.sums import accurate_sum, sum_of_products

# The logarithm of a smaller number is taken from its factors.
_SMALL = 1e-30


def _leader_and_others(lib: Library, logits: Any, probabilities: Any) -> tuple[Any, Any]:
    """Return a mask of classes with more than half of the probability, and the logits with -inf for these."""
    is_leader = probabilities > 0.5
    return is_leader, lib.xp.where(is_leader, -lib.xp.inf, logits)


@differentiable
def log_complement(lib: Library, logits: Any, axes: tuple[int, ...], into: Any = None) -> Any:
    """Return `log(1 - p)`."""
    del into  # of no use
    xp, p = lib.xp, softmax(lib, logits, axes=axes)
    is_leader, others = _leader_and_others(lib, logits, p)
    top, second = lib.maximum(logits, axes), lib.maximum(others, axes)
    # Nothing is left where the row has one possible class, or is NaN.
    is_alone = second == -xp.inf
    second = xp.where(is_alone, 0, second)
    total = accurate_sum(lib, xp.exp(difference(lib, others, second)), axes)
    below = xp.where(is_alone, 0, difference(lib, second, top))
    rest = xp.exp(below) * total
    is_small = rest < _SMALL
    log_rest = xp.where(is_small, below + xp.log(xp.where(is_alone, 1, total)), xp.log(xp.where(is_small, 1, rest)))
    of_leader = xp.where(is_alone, -xp.inf, log_rest - xp.log1p(rest))
    few = xp.where(is_leader, 0, p)
    # Not log1p(-p): XLA's log1p of float64 is off by up to 230 units of roundoff between -0.41 and -0.36.
    return xp.where(is_leader, of_leader, -xp.log1p(few / (1 - few)))


@log_complement.has_jvp
def _(lib: Library, vector: Any, logits: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    p, of_others, odds = _slopes(lib, logits, axes)
    slope = odds * (vector - sum_of_products(lib, p, vector, axes))
    of_leader = p * (vector - sum_of_products(lib, of_others, vector, axes))
    return log_complement(lib, logits, axes=axes), -lib.xp.where(p > 0.5, of_leader, slope)


@log_complement.has_vjp
def _(lib: Library, cotangent: Any, logits: Any, axes: tuple[int, ...]) -> Any:
    p, of_others, odds = _slopes(lib, logits, axes)
    is_leader = p > 0.5
    few, leading = odds * cotangent, lib.xp.where(is_leader, p * cotangent, 0)
    shared = p * accurate_sum(lib, few, axes) + of_others * accurate_sum(lib, leading, axes)
    return shared - few - leading


def _slopes(lib: Library, logits: Any, axes: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """Return the softmax, that of all but the leader, and `p / (1 - p)` of all but the leader."""
    p = softmax(lib, logits, axes=axes)
    is_leader, others = _leader_and_others(lib, logits, p)
    is_alone = lib.maximum(others, axes) == -lib.xp.inf
    of_others = softmax(lib, lib.xp.where(is_alone, 0, others), axes=axes)
    of_others = lib.xp.where(is_leader | is_alone, 0, of_others)
    few = lib.xp.where(is_leader, 0, p)
    return p, of_others, few / (1 - few)
