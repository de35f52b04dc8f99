"""The kernels: what the public functions compute of whole rows, and of rows whose classes lie in several pieces."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from stable_softmax._core.kernel import Kernel, Pieces
from stable_softmax._core.layout import Result
from stable_softmax._maths import complement, divergences, entropy, masks, merging, normalization, objective, pieces

_part_of_losses = partial(pieces.with_largest_weight, pieces.part_of_losses)
_part_of_derivatives = partial(pieces.with_largest_weight, pieces.part_of_derivatives)

# Operand: the mask, or None.
SOFTMAX = Kernel(
    partial(masks.normalized, normalization.softmax, 0.0),
    "classes",
    pieces=Pieces(pieces.part_of_logsumexp, merging.merged, entries=pieces.softmax_of_piece),
)
LOG_SOFTMAX = Kernel(
    partial(masks.normalized, normalization.log_softmax, -math.inf),
    "classes",
    pieces=Pieces(pieces.part_of_logsumexp, merging.merged, entries=pieces.log_softmax_of_piece),
)
LOG_COMPLEMENT = Kernel(partial(masks.normalized, complement.log_complement, 0.0), "classes")
LOGSUMEXP = Kernel(
    masks.masked_logsumexp,
    "rows",
    pieces=Pieces(pieces.part_of_logsumexp, merging.merged, rows=pieces.logsumexp_of_part),
)
LOGSUMEXP_AND_SIGN = Kernel(
    partial(masks.with_sign, masks.masked_logsumexp),
    "rows",
    "rows",
    pieces=Pieces(pieces.part_of_logsumexp, merging.merged, rows=partial(masks.with_sign, pieces.logsumexp_of_part)),
)
# Operands: the mask, or None, and the weights.
WEIGHTED_LOGSUMEXP = Kernel(masks.weighted_logsumexp, "rows")
WEIGHTED_LOGSUMEXP_AND_SIGN = Kernel(masks.weighted_logsumexp_and_sign, "rows", "rows")
# Operand: the criterion.
LOSSES = Kernel(
    objective.losses,
    "rows",
    pieces=Pieces(pieces.part_of_losses, pieces.merged_with_weights, rows=pieces.losses_of_part),
)
# By the number of statistics.
_ROWS: tuple[Result, ...] = ("rows",) * 8
STATISTICS = {
    number: Kernel(
        pieces.statistics,
        *_ROWS[:number],
        pieces=Pieces(pieces.part_of_losses, merging.merged, rows=pieces.statistics_of_part),
    )
    for number in (4, 5, 7, 8)
}
GRADIENT = Kernel(
    objective.gradient,
    "classes",
    pieces=Pieces(_part_of_derivatives, pieces.merged_with_weights, entries=pieces.gradient_of_piece),
)
LOSSES_AND_GRADIENT = Kernel(
    objective.losses_and_gradient,
    "rows",
    "classes",
    pieces=Pieces(
        _part_of_losses, pieces.merged_with_weights, rows=pieces.losses_of_part, entries=pieces.gradient_of_piece
    ),
)
HESSIAN_DIAGONAL = Kernel(
    objective.hessian_diagonal,
    "classes",
    pieces=Pieces(pieces.part_of_derivatives, pieces.merged_with_weights, entries=pieces.hessian_diagonal_of_piece),
)
# Operands: a vector and the criterion.
HESSIAN_PRODUCT = Kernel(objective.hessian_product, "classes")


def _of_comparison(function: Callable[..., Any], *results: Result) -> Kernel:
    """Return the kernel of a function with many temporary arrays; its operand is the comparison."""
    return Kernel(partial(masks.of_kept_classes, function), *results, block_divisor=8)


ENTROPY = _of_comparison(entropy.entropy, "rows")
ENTROPY_AND_GRADIENT = _of_comparison(entropy.entropy_and_gradient, "rows", "classes")
KL_DIVERGENCE = _of_comparison(divergences.kl_divergence, "rows")
KL_DIVERGENCE_AND_GRADIENTS = _of_comparison(divergences.kl_divergence_and_gradients, "rows", "classes", "classes")
JS_DIVERGENCE = _of_comparison(divergences.js_divergence, "rows")
JS_DIVERGENCE_AND_GRADIENTS = _of_comparison(divergences.js_divergence_and_gradients, "rows", "classes", "classes")
