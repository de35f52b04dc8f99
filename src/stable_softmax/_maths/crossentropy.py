"""The loss of each row for its label, its gradient and its Hessian, with their derivatives of any order.

Sums leave the label's entry out: adding it to a tiny rest would round the rest away. Class ids have an axis of length 1
in place of the class axis. A row whose class id is out of range gives NaN.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from stable_softmax._libraries.differentiable import differentiable
from stable_softmax._libraries.standard import Library
from stable_softmax._maths.exponentials import computed, difference, for_each_row, quotient, weigh
from stable_softmax._maths.labels import Place, entry, in_range, place_of
from stable_softmax._maths.normalization import covariance_product, softmax
from stable_softmax._maths.sums import accurate_sum, sum_of_products


class Rule(NamedTuple):
    """How logits are compared with class ids."""

    axis: int
    #: Whether all class ids are known to be in range.
    are_valid: bool = False
    #: What gradients and Hessians are divided by.
    divisor: int = 1


@differentiable
def crossentropy(lib: Library, logits: Any, class_ids: Any, rule: Rule) -> Any:
    """Return `log(sum(w) / w_y)` as `log1p(rest / w_y)`, where `rest` is the sum without the label."""
    return _loss(lib, _split_at_label(lib, logits, class_ids, rule), rule.axis)


@crossentropy.has_jvp
def _(lib: Library, vector: Any, logits: Any, class_ids: Any, rule: Rule) -> tuple[Any, Any]:
    losses, gradient = crossentropy_and_gradient(lib, logits, class_ids, rule=rule._replace(divisor=1))
    return losses, sum_of_products(lib, gradient, vector, (rule.axis,))


@crossentropy.has_vjp
def _(lib: Library, cotangent: Any, logits: Any, class_ids: Any, rule: Rule) -> Any:
    return cotangent * crossentropy_gradient(lib, logits, class_ids, rule=rule._replace(divisor=1))


@crossentropy.has_value_and_gradient
def _(lib: Library, logits: Any, class_ids: Any, rule: Rule) -> tuple[Any, Any]:
    return crossentropy_and_gradient.value(lib, logits, class_ids, rule=rule._replace(divisor=1))


@differentiable
def crossentropy_gradient(lib: Library, logits: Any, class_ids: Any, rule: Rule, into: Any = None) -> Any:
    """Return the gradient of the loss divided by the divisor: `w_j / sum(w)`, and at the label `-rest / sum(w)`."""
    return _gradient(lib, _split_at_label(lib, logits, class_ids, rule, into), rule)


@crossentropy_gradient.has_vjp
def hessian_product(lib: Library, vector: Any, logits: Any, class_ids: Any, rule: Rule, into: Any = None) -> Any:
    """Return the Hessian of each example's loss times its vector, divided by the divisor."""
    share = _loss_factors(lib, logits, class_ids, rule)
    return computed(lib.xp.multiply, covariance_product(lib, vector, logits, (rule.axis,)), share, into=into)


@crossentropy_gradient.has_jvp
def _(lib: Library, vector: Any, logits: Any, class_ids: Any, rule: Rule) -> tuple[Any, Any]:
    product = hessian_product(lib, vector, logits, class_ids, rule)
    return crossentropy_gradient(lib, logits, class_ids, rule=rule), product


@differentiable
def crossentropy_and_gradient(
    lib: Library, logits: Any, class_ids: Any, rule: Rule, into: Any = None
) -> tuple[Any, Any]:
    """Return the loss, and the gradient divided by the divisor, from one evaluation of the exponentials."""
    split = _split_at_label(lib, logits, class_ids, rule, into)
    loss = _loss(lib, split, rule.axis)  # before the gradient takes the weights' place
    return loss, _gradient(lib, split, rule)


@crossentropy_and_gradient.has_jvp
def _(lib: Library, vector: Any, logits: Any, class_ids: Any, rule: Rule) -> tuple[Any, Any]:
    both = crossentropy_and_gradient(lib, logits, class_ids, rule=rule)
    slope = sum_of_products(lib, both[1], vector, (rule.axis,)) * rule.divisor
    return both, (slope, hessian_product(lib, vector, logits, class_ids, rule))


@crossentropy_and_gradient.has_vjp
def _(lib: Library, cotangents: tuple[Any, Any], logits: Any, class_ids: Any, rule: Rule) -> Any:
    first = cotangents[0] * crossentropy_gradient(lib, logits, class_ids, rule=rule._replace(divisor=1))
    return first + hessian_product(lib, cotangents[1], logits, class_ids, rule)


@differentiable
def variance(lib: Library, logits: Any, axes: tuple[int, ...], into: Any = None) -> Any:
    """Return `p * (1 - p)`, where `1 - p` of the largest entry is computed as the sum of the others."""
    (axis,) = axes
    rule, leaders = Rule(axis, are_valid=True), lib.xp.argmax(logits, axis=axis, keepdims=True)
    split = _split_at_label(lib, logits, leaders, rule, into)
    sides = lib.xp.abs(_gradient(lib, split, rule))  # `1 - p` at the leader, and `p` elsewhere
    largest = quotient(lib, split.weight, split.total, split.shift)
    return sides * lib.put(1 - sides, split.place.positions, largest)


@variance.has_jvp
def _(lib: Library, vector: Any, logits: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    slopes = 1 - 2 * softmax(lib, logits, axes=axes)
    return variance(lib, logits, axes=axes), slopes * covariance_product(lib, vector, logits, axes)


@variance.has_vjp
def _(lib: Library, cotangent: Any, logits: Any, axes: tuple[int, ...]) -> Any:
    return covariance_product(lib, (1 - 2 * softmax(lib, logits, axes=axes)) * cotangent, logits, axes)


def hessian_diagonal(lib: Library, logits: Any, class_ids: Any, rule: Rule, into: Any = None) -> Any:
    """Return the diagonal of the Hessian of each example's loss, divided by the divisor."""
    rows = variance(lib, logits, axes=(rule.axis,), into=into)
    return computed(lib.xp.multiply, rows, _loss_factors(lib, logits, class_ids, rule), into=into)


class _Split(NamedTuple):
    """The weights of rows, separated into that of the label and the others."""

    #: Sum of all weights.
    total: Any
    #: Weights with 0 at the label, in memory that nothing else uses.
    others: Any
    #: Sum of the other weights.
    rest: Any
    #: Weight of the label.
    weight: Any
    #: Function that returns its logarithm.
    log_weight: Callable[[], Any]
    place: Place
    #: Shift of the weights, as `weigh` gives it.
    shift: Any


def _split_at_label(lib: Library, logits: Any, class_ids: Any, rule: Rule, into: Any = None) -> _Split:
    axis = rule.axis
    place = place_of(lib, logits, class_ids, axis, rule.are_valid)

    def split(weights: Any, shift: Any) -> _Split:
        def log_weight() -> Any:
            # Needed only if the label's weight is tiny, so that the largest weight is among the others.
            own_shift = shift
            if own_shift is None:
                own_shift = lib.maximum(logits, (axis,)) - lib.xp.log(lib.maximum(others, (axis,)))
            return difference(lib, entry(lib, logits, place), own_shift)

        # Compilers fetch an entry of the logits more cheaply than one of their exponentials, which are not stored.
        is_there = lib.reads_values or shift is None
        weight = entry(lib, weights, place) if is_there else lib.xp.exp(log_weight())
        others = lib.put(weights, place.positions, 0)
        rest = accurate_sum(lib, others, (axis,))
        return _Split(rest + weight, others, rest, weight, log_weight, place, shift)

    return weigh(split, lib, logits, (axis,), into)


def _loss(lib: Library, split: _Split, axis: int) -> Any:
    tiny = 4 * lib.limit(split.weight.dtype, "smallest_normal")
    if lib.reads_values:
        ratio = split.rest / split.weight
        if lib.lie_within(ratio, 0.5 / tiny):
            return lib.xp.log1p(ratio)

    def loss(rest: Any, weight: Any, log_weight: Any) -> Any:
        total = rest + weight
        is_tiny = weight < tiny * total
        ratio = lib.xp.where(is_tiny, total - 1, rest / lib.xp.where(is_tiny, 1, weight))
        return lib.xp.log1p(ratio) - lib.xp.where(is_tiny, log_weight, 0)

    return for_each_row(lib, loss, split.rest, split.weight, split.log_weight(), axes=(axis,))


def _gradient(lib: Library, split: _Split, rule: Rule) -> Any:
    numerators = lib.put(split.others, split.place.positions, -split.rest)
    return quotient(lib, numerators, split.total, split.shift, rule.divisor)


def _loss_factors(lib: Library, logits: Any, class_ids: Any, rule: Rule) -> Any:
    """Return the factor of each example's loss: `1 / divisor`, or NaN where its class id is out of range."""
    share = lib.xp.ones_like(class_ids, dtype=logits.dtype) / rule.divisor
    if rule.are_valid:
        return share
    return lib.nan_where(~in_range(class_ids, logits.shape[rule.axis]), share)
