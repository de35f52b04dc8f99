"""The loss of each row with all its options, and its derivatives, from those of a plain label.

With the label's target `s`, the others' `q`, `L = logsumexp` and `z_loss = k`, the loss is
`s * (loss of the label) + sum of q_c * -log_softmax_c + k L**2`, and each term is accurate.

The fields of the criterion come by position, since its arrays come in parts. What has one entry for each class may be
returned in given memory, where that saves a copy.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from stable_softmax._libraries._operations import rounded_product
from stable_softmax._maths import _derivatives
from stable_softmax._maths._conversion import converted
from stable_softmax._maths._sums import accurate_sum, sum_of_products
from stable_softmax._maths._targets import Criterion, Targets, targets_of


class Terms(NamedTuple):
    """What losses and their derivatives are made of beside those of the label: functions, since some need but few."""

    probabilities: Callable[[], Any]
    logsumexp: Callable[[], Any]
    #: The sum of the other targets.
    others: Callable[[], Any]


def losses(xp: ModuleType, logits: Any, *criterion: Any, axes: tuple[int, ...]) -> Any:
    """Return the losses over the divisor."""
    logits, targets = targets_of(xp, logits, Criterion(*criterion), axes[0])
    plain = _derivatives.crossentropy(xp, logits, targets.class_ids, axis=axes[0])
    return _over_divisor(plain, targets) if targets.is_plain else _loss(xp, plain, logits, targets, axes)


def gradient(xp: ModuleType, logits: Any, *criterion: Any, axes: tuple[int, ...], into: Any = None) -> Any:
    """Return the gradient of the losses over the divisor."""
    logits, targets = targets_of(xp, logits, Criterion(*criterion), axes[0])
    if targets.is_plain:
        rows = _derivatives.crossentropy_gradient(
            xp, logits, targets.class_ids, axis=axes[0], divisor=targets.divisor, into=into
        )
        return _of_left(xp, rows, targets)
    plain = _derivatives.crossentropy_gradient(xp, logits, targets.class_ids, axis=axes[0])
    return gradient_from_terms(xp, plain, _terms(xp, logits, targets, axes), targets)


def losses_and_gradient(
    xp: ModuleType, logits: Any, *criterion: Any, axes: tuple[int, ...], into: Any = None
) -> tuple[Any, Any]:
    """Return both."""
    logits, targets = targets_of(xp, logits, Criterion(*criterion), axes[0])
    if targets.is_plain:
        plain, rows = _derivatives.crossentropy_and_gradient(
            xp, logits, targets.class_ids, axis=axes[0], divisor=targets.divisor, into=into
        )
        return _over_divisor(plain, targets), _of_left(xp, rows, targets)
    plain, rows = _derivatives.crossentropy_and_gradient(xp, logits, targets.class_ids, axis=axes[0])
    return _loss(xp, plain, logits, targets, axes), gradient_from_terms(
        xp, rows, _terms(xp, logits, targets, axes), targets
    )


def hessian_product(
    xp: ModuleType, logits: Any, vector: Any, *criterion: Any, axes: tuple[int, ...], into: Any = None
) -> Any:
    """Return the Hessian of each loss, over the divisor, times its vector. It is linear in the vector."""
    logits, targets = targets_of(xp, logits, Criterion(*criterion), axes[0])
    vector = _of_left(xp, converted(xp, vector, logits.dtype), targets)
    if targets.is_plain:
        rows = _derivatives.hessian_product(
            xp, vector, logits, targets.class_ids, axis=axes[0], divisor=targets.divisor, into=into
        )
        return _of_left(xp, rows, targets)
    rows = _derivatives.hessian_product(xp, vector, logits, targets.class_ids, axis=axes[0])
    terms = _terms(xp, logits, targets, axes)
    return hessian_from_terms(xp, rows, lambda p: sum_of_products(xp, p, vector, axes), terms, targets)


def hessian_diagonal(xp: ModuleType, logits: Any, *criterion: Any, axes: tuple[int, ...], into: Any = None) -> Any:
    """Return the diagonal of the Hessian of each loss, over the divisor."""
    logits, targets = targets_of(xp, logits, Criterion(*criterion), axes[0])
    if targets.is_plain:
        rows = _derivatives.hessian_diagonal(
            xp, logits, targets.class_ids, axis=axes[0], divisor=targets.divisor, into=into
        )
        return _of_left(xp, rows, targets)
    rows = _derivatives.hessian_diagonal(xp, logits, targets.class_ids, axis=axes[0])
    return hessian_from_terms(xp, rows, lambda p: p, _terms(xp, logits, targets, axes), targets)


def _loss(xp: ModuleType, plain: Any, logits: Any, targets: Targets, axes: tuple[int, ...]) -> Any:
    def of_others() -> Any:
        terms = weighted(xp, targets.others, -_derivatives.log_softmax(xp, logits, axes=axes))
        return accurate_sum(xp, terms, axes)

    return loss_from_terms(xp, plain, of_others, lambda: _derivatives.logsumexp(xp, logits, axes=axes), targets)


def loss_from_terms(
    xp: ModuleType, plain: Any, of_others: Callable[[], Any], logsumexp: Callable[[], Any], targets: Targets
) -> Any:
    """Return the losses over the divisor, from those of the label, those of the other targets, and the logsumexp."""
    loss = (
        plain if targets.scale is None else rounded_product(xp, _but_for_zero(xp, targets.scale, plain), targets.scale)
    )
    if targets.others is not None:
        loss = loss + of_others()
    if targets.z_loss is not None:
        loss = loss + _penalty(xp, targets.z_loss, logsumexp())
    return _over_divisor(_of_counted(xp, loss, targets), targets)


def gradient_from_terms(xp: ModuleType, plain: Any, terms: Terms, targets: Targets) -> Any:
    """Return the gradient of the losses over the divisor, from that of the label's."""
    rows = plain if targets.scale is None else targets.scale * plain
    if targets.others is not None or targets.z_loss is not None:
        rows = rows + _pulled(xp, terms.probabilities(), 0, terms, targets)
    if targets.others is not None:
        rows = rows - targets.others
    return _of_left(xp, _over_divisor(rows, targets), targets)


def hessian_from_terms(
    xp: ModuleType, plain: Any, slope_of: Callable[[Any], Any], terms: Terms, targets: Targets
) -> Any:
    """Return rows of the Hessian, from those of a plain label's and the logsumexp's slope, given the probabilities."""
    rows = _pulled(xp, plain, 1 if targets.scale is None else targets.scale, terms, targets)
    if targets.z_loss is not None:
        probabilities = terms.probabilities()
        rows = rows + _bent(xp, probabilities, slope_of(probabilities), targets)
    return _of_left(xp, _over_divisor(rows, targets), targets)


def _terms(xp: ModuleType, logits: Any, targets: Targets, axes: tuple[int, ...]) -> Terms:
    return Terms(
        probabilities=lambda: _derivatives.softmax(xp, logits, axes=axes),
        logsumexp=lambda: _derivatives.logsumexp(xp, logits, axes=axes),
        others=lambda: accurate_sum(xp, targets.others, axes),
    )


def _over_divisor(values: Any, targets: Targets) -> Any:
    """Return the values' shares of the mean, which cannot overflow where their sum could."""
    undivided = isinstance(targets.divisor, int) and targets.divisor == 1
    return values if undivided else values / targets.divisor


def _pulled(xp: ModuleType, rows: Any, scale: Any, terms: Terms, targets: Targets) -> Any:
    """Return the rows times all that draws towards other classes: scale, the other targets, and the penalty's slope."""
    if targets.others is not None:
        scale = scale + terms.others()
    if targets.z_loss is None:
        return rows * scale
    large, small = _factors_of_twice(xp, targets.z_loss)
    slope = _times(xp, small, terms.logsumexp())
    if isinstance(large, float) and large == 1:
        return rows * (scale + slope)
    return rows * scale + rounded_product(xp, large * rows, slope)


def _bent(xp: ModuleType, rows: Any, values: Any, targets: Targets) -> Any:
    """Return the rows times values and the curvature of the penalty as a function of the logsumexp."""
    large, small = _factors_of_twice(xp, targets.z_loss)
    return rounded_product(xp, large * rows, _times(xp, small, values))


def _factors_of_twice(xp: ModuleType, number: Any) -> tuple[Any, Any]:
    """Return two factors of `2 * number`, at least 1 and at most 1, to be multiplied with small and large values."""
    twice = 2 * number
    if isinstance(twice, float):
        return max(twice, 1.0), min(twice, 1.0)
    # Selections, since equal arguments of a maximum share its derivative.
    return xp.where(twice >= 1, twice, 1), xp.where(twice >= 1, 1, twice)


def _penalty(xp: ModuleType, number: Any, total: Any) -> Any:
    """Return `number * total**2`."""
    if not isinstance(number, float):
        return number * total * total
    total = _times(xp, number**0.5, total)
    return rounded_product(xp, total, total)


def _times(xp: ModuleType, number: Any, values: Any) -> Any:
    """Return the values times a number, in two steps where their dtype may not hold it."""
    if isinstance(number, float) and number < 1e-30:
        root = number**0.5
        return rounded_product(xp, rounded_product(xp, values, root), root)
    return rounded_product(xp, values, number)


def weighted(xp: ModuleType, weights: Any, values: Any) -> Any:
    """Return the product, where 0 times infinity is 0."""
    return weights * _but_for_zero(xp, weights, values)


def _but_for_zero(xp: ModuleType, weights: Any, values: Any) -> Any:
    return xp.where((weights == 0) & xp.isinf(values), 0, values)


def _of_left(xp: ModuleType, rows: Any, targets: Targets) -> Any:
    """Return derivatives, with 0 for what does not count, as autodiff has it."""
    if targets.where is not None:
        rows = xp.where(targets.where, rows, 0)
    return _of_counted(xp, rows, targets)


def _of_counted(xp: ModuleType, rows: Any, targets: Targets) -> Any:
    return rows if targets.counted is None else xp.where(targets.counted, rows, 0)
