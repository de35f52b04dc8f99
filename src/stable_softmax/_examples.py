"""All arguments of a loss: checked before any work is done, and in the form that the work takes them."""

import math
import sys
from types import ModuleType
from typing import Any, NamedTuple

from stable_softmax import _blocks
from stable_softmax._arguments import (
    Reduction,
    Rows,
    check_probabilities,
    check_reduction,
    check_single_axis,
    class_ids_of,
    class_weights_of,
    holds_class_ids,
    ignored_id_of,
    namespace_of,
    number_of,
    rows_of,
    where_of,
)
from stable_softmax._labels import check_class_ids
from stable_softmax._targets import Options, checked_weights, example_weights

_REQUIRED = ("logits", "reference_answers")


class Examples(NamedTuple):
    """The arguments of a loss."""

    xp: ModuleType
    rows: Rows
    #: What `options.names` names.
    arrays: tuple[Any, ...]
    options: Options
    reduction: Reduction


def examples_of(
    logits: Any,
    reference_answers: Any,
    axis: int,
    where: Any,
    class_weights: Any,
    label_smoothing: float,
    ignore_index: int | None,
    z_loss: float,
    reduction: Reduction,
    dtype: Any,
) -> Examples:
    """Check all arguments of a loss."""
    given = {"logits": logits, "reference_answers": reference_answers, "where": where, "class_weights": class_weights}
    xp = namespace_of(**{name: array for name, array in given.items() if array is not None or name in _REQUIRED})
    check_reduction(reduction)
    check_single_axis(axis)
    smoothing = number_of("label_smoothing", label_smoothing, largest=1.0)
    z_loss = number_of("z_loss", z_loss, largest=sys.float_info.max)
    ignored_id = None if ignore_index is None else ignored_id_of(xp, ignore_index, reference_answers)
    rows = rows_of(xp, logits, axis, dtype)
    arrays = _arrays(xp, rows, reference_answers, where, class_weights)
    if "class_ids" in arrays:
        ids = arrays["class_ids"]
        check_class_ids(xp, ids, reference_answers, logits.shape, rows.axes[0], arrays.get("where"), ignored_id)
    divisor = _number_of_examples(rows) if reduction == "mean" else 1
    options = Options(tuple(arrays), smoothing, ignored_id, z_loss, divisor)
    if reduction == "mean" and "class_ids" in arrays and ("class_weights" in arrays or ignored_id is not None):
        arrays["divisor"] = xp.reshape(_weighted_number(xp, rows, arrays, options), (1,) * logits.ndim)
        options = options._replace(names=tuple(arrays))
    return Examples(xp, rows, tuple(arrays.values()), options, reduction)


def _arrays(xp: ModuleType, rows: Rows, reference_answers: Any, where: Any, class_weights: Any) -> dict[str, Any]:
    arrays = {}
    if holds_class_ids(xp, reference_answers):
        arrays["class_ids"] = class_ids_of(xp, reference_answers, rows)
    else:
        check_probabilities(reference_answers, rows)
        arrays["probabilities"] = reference_answers
    if where is not None:
        arrays["where"] = where_of(xp, where, rows)
    if class_weights is not None:
        arrays["class_weights"] = checked_weights(xp, class_weights_of(xp, class_weights, rows))
    return arrays


def _number_of_examples(rows: Rows) -> int:
    """Return the number of examples, and 1 for none: the mean over none is 0."""
    # A list, since the compiler of PyTorch refuses a generator here.
    return max(1, math.prod([length for i, length in enumerate(rows.logits.shape) if i not in rows.axes]))


def _weighted_number(xp: ModuleType, rows: Rows, arrays: dict[str, Any], options: Options) -> Any:
    """Return the weights of all counted examples together, and infinity for 0: the mean over nothing is 0."""
    total = _blocks.run(example_weights, xp, rows, *arrays.values(), results=("total",), options=options)
    return xp.where(total == 0, xp.inf, total)
