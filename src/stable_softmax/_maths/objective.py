"""The loss of each row with all options, and its derivatives, from those of the plain label.

With the target `s` of the label, `q` of the other classes, `L = logsumexp` and `k = z_loss`, the loss is
`s * (loss of the label) + sum of q_c * -log_softmax_c + k L**2`, and each term is accurate.

Results with one entry for each class may be written into the memory `into`, where that saves a copy.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from stable_softmax._core.criterion import Criterion
from stable_softmax._libraries.standard import Library
from stable_softmax._maths import crossentropy as of_label
from stable_softmax._maths.normalization import log_softmax, logsumexp, softmax
from stable_softmax._maths.sums import accurate_sum, sum_of_products
from stable_softmax._maths.targets import Targets, targets_of, zero_excluded, zero_uncounted, zero_untargeted


class Terms(NamedTuple):
    """Terms of losses and derivatives besides those of the label, as functions, since not all are needed."""

    probabilities: Callable[[], Any]
    logsumexp: Callable[[], Any]
    #: The sum of the other targets.
    others: Callable[[], Any]


def losses(lib: Library, logits: Any, criterion: Criterion, axes: tuple[int, ...]) -> Any:
    """Return the losses divided by the divisor."""
    logits, targets, rule = _logits_and_targets(lib, logits, criterion, axes)
    plain = of_label.crossentropy(lib, logits, targets.class_ids, rule=rule)
    return _over_divisor(plain, targets) if targets.is_plain else _loss(lib, plain, logits, targets, axes)


def gradient(lib: Library, logits: Any, criterion: Criterion, axes: tuple[int, ...], into: Any = None) -> Any:
    """Return the gradient of the losses divided by the divisor."""
    logits, targets, rule = _logits_and_targets(lib, logits, criterion, axes)
    rows = of_label.crossentropy_gradient(lib, logits, targets.class_ids, rule=rule, into=into)
    if targets.is_plain:
        return zero_excluded(lib, targets.where, rows)
    return gradient_from_terms(lib, rows, _terms(lib, logits, targets, axes), targets)


def losses_and_gradient(
    lib: Library, logits: Any, criterion: Criterion, axes: tuple[int, ...], into: Any = None
) -> tuple[Any, Any]:
    """Return the losses and their gradient, both divided by the divisor."""
    logits, targets, rule = _logits_and_targets(lib, logits, criterion, axes)
    plain, rows = of_label.crossentropy_and_gradient(lib, logits, targets.class_ids, rule=rule, into=into)
    if targets.is_plain:
        return _over_divisor(plain, targets), zero_excluded(lib, targets.where, rows)
    terms = _terms(lib, logits, targets, axes)
    return _loss(lib, plain, logits, targets, axes), gradient_from_terms(lib, rows, terms, targets)


def hessian_product(
    lib: Library, logits: Any, operands: tuple[Any, Criterion], axes: tuple[int, ...], into: Any = None
) -> Any:
    """Return the Hessian of each loss times its vector, the first operand, divided by the divisor."""
    vector, criterion = operands
    logits, targets, rule = _logits_and_targets(lib, logits, criterion, axes)
    vector = _zero_unused(lib, lib.convert(vector, logits.dtype), targets)
    rows = of_label.hessian_product(lib, vector, logits, targets.class_ids, rule=rule, into=into)
    if targets.is_plain:
        return zero_excluded(lib, targets.where, rows)
    terms = _terms(lib, logits, targets, axes)
    return hessian_from_terms(lib, rows, lambda p: sum_of_products(lib, p, vector, axes), terms, targets)


def hessian_diagonal(lib: Library, logits: Any, criterion: Criterion, axes: tuple[int, ...], into: Any = None) -> Any:
    """Return the diagonal of the Hessian of each loss, divided by the divisor."""
    logits, targets, rule = _logits_and_targets(lib, logits, criterion, axes)
    rows = of_label.hessian_diagonal(lib, logits, targets.class_ids, rule=rule, into=into)
    if targets.is_plain:
        return zero_excluded(lib, targets.where, rows)
    return hessian_from_terms(lib, rows, lambda p: p, _terms(lib, logits, targets, axes), targets)


def _logits_and_targets(
    lib: Library, logits: Any, criterion: Criterion, axes: tuple[int, ...]
) -> tuple[Any, Targets, of_label.Rule]:
    """Return the logits that count, their targets, and how the functions of a label compare them."""
    logits, targets = targets_of(lib, logits, criterion, axes[0])
    divisor = targets.divisor if targets.is_plain else 1
    return logits, targets, of_label.Rule(axes[0], targets.are_valid, divisor)


def _loss(lib: Library, plain: Any, logits: Any, targets: Targets, axes: tuple[int, ...]) -> Any:
    def of_others() -> Any:
        terms = targets.others * zero_untargeted(lib, targets.others, -log_softmax(lib, logits, axes=axes))
        return accurate_sum(lib, terms, axes)

    return loss_from_terms(lib, plain, of_others, lambda: logsumexp(lib, logits, axes=axes), targets)


def loss_from_terms(
    lib: Library, plain: Any, of_others: Callable[[], Any], log_total: Callable[[], Any], targets: Targets
) -> Any:
    """Return the losses divided by the divisor, from those of the label and the other targets, and the logsumexp."""
    loss = (
        plain
        if targets.scale is None
        else lib.rounded_product(zero_untargeted(lib, targets.scale, plain), targets.scale)
    )
    if targets.others is not None:
        loss = loss + of_others()
    if targets.z_loss is not None:
        loss = loss + _penalty(lib, targets.z_loss, log_total())
    return _over_divisor(zero_uncounted(lib, targets.counted, loss), targets)


def gradient_from_terms(lib: Library, plain: Any, terms: Terms, targets: Targets) -> Any:
    """Return the gradient of the losses divided by the divisor, from that of the label's loss."""
    rows = plain if targets.scale is None else targets.scale * plain
    if targets.others is not None or targets.z_loss is not None:
        rows = rows + _towards_all_targets(lib, terms.probabilities(), 0, terms, targets)
    if targets.others is not None:
        rows = rows - targets.others
    return _zero_unused(lib, _over_divisor(rows, targets), targets)


def hessian_from_terms(lib: Library, plain: Any, slope_of: Callable[[Any], Any], terms: Terms, targets: Targets) -> Any:
    """Return rows of the Hessian, from those of the plain label and the logsumexp's slope, given the probabilities."""
    rows = _towards_all_targets(lib, plain, 1 if targets.scale is None else targets.scale, terms, targets)
    if targets.z_loss is not None:
        probabilities = terms.probabilities()
        rows = rows + _penalty_curvature(lib, probabilities, slope_of(probabilities), targets)
    return _zero_unused(lib, _over_divisor(rows, targets), targets)


def _terms(lib: Library, logits: Any, targets: Targets, axes: tuple[int, ...]) -> Terms:
    return Terms(
        probabilities=lambda: softmax(lib, logits, axes=axes),
        logsumexp=lambda: logsumexp(lib, logits, axes=axes),
        others=lambda: accurate_sum(lib, targets.others, axes),
    )


def _over_divisor(values: Any, targets: Targets) -> Any:
    """Return the values times what each example counts, over the divisor: before they are summed, as sums overflow."""
    if targets.example_weights is not None:
        return values * (targets.example_weights / targets.divisor)  # a factor of at most 1 in a mean
    undivided = isinstance(targets.divisor, int) and targets.divisor == 1
    return values if undivided else values / targets.divisor


def _towards_all_targets(lib: Library, rows: Any, scale: Any, terms: Terms, targets: Targets) -> Any:
    """Return the rows times the scale plus the sum of the other targets and the slope of the penalty."""
    if targets.others is not None:
        scale = scale + terms.others()
    if targets.z_loss is None:
        return rows * scale
    large, small = _factors_of_twice(lib, targets.z_loss)
    slope = _times(lib, small, terms.logsumexp())
    if isinstance(large, float) and large == 1:
        return rows * (scale + slope)
    return rows * scale + lib.rounded_product(large * rows, slope)


def _penalty_curvature(lib: Library, rows: Any, values: Any, targets: Targets) -> Any:
    """Return the rows times values times the curvature of the penalty with respect to the logsumexp."""
    large, small = _factors_of_twice(lib, targets.z_loss)
    return lib.rounded_product(large * rows, _times(lib, small, values))


def _factors_of_twice(lib: Library, number: Any) -> tuple[Any, Any]:
    """Return two factors of `2 * number`: one at least 1, for small values, and one at most 1, for large values."""
    twice = 2 * number
    if isinstance(twice, float):
        return max(twice, 1.0), min(twice, 1.0)
    # Not a maximum, whose derivative equal arguments would share.
    return lib.xp.where(twice >= 1, twice, 1), lib.xp.where(twice >= 1, 1, twice)


def _penalty(lib: Library, number: Any, total: Any) -> Any:
    """Return `number * total**2`."""
    if not isinstance(number, float):
        return number * total * total
    total = _times(lib, number**0.5, total)
    return lib.rounded_product(total, total)


def _times(lib: Library, number: Any, values: Any) -> Any:
    """Return the values times a number, in two steps if the number may underflow in their dtype."""
    if isinstance(number, float) and number < 1e-30:
        root = number**0.5
        return lib.rounded_product(lib.rounded_product(values, root), root)
    return lib.rounded_product(values, number)


def _zero_unused(lib: Library, rows: Any, targets: Targets) -> Any:
    """Return derivatives with 0 for excluded classes and ignored examples, as autodiff has them."""
    return zero_uncounted(lib, targets.counted, zero_excluded(lib, targets.where, rows))
