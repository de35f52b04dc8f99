"""Labels (`reference_answers`): class ids or target probabilities, by dtype and shape."""

import math
from typing import Any, NamedTuple

from stable_softmax._core.layout import Layout
from stable_softmax._libraries.remedies import remedy_for_labels
from stable_softmax._libraries.standard import Library

_ONE_HOT = "; one-hot rows count as probabilities: convert them to floating"
_SWAPPED = "; are logits and reference_answers swapped?"


class ShapeAndDtype(NamedTuple):
    """An array's shape and dtype."""

    shape: tuple[int, ...]
    dtype: Any


def holds_class_ids(lib: Library, answers: ShapeAndDtype, layout: Layout) -> bool:
    if lib.is_of_kind(answers.dtype, "integral", "real floating"):
        return lib.is_of_kind(answers.dtype, "integral")
    is_one_hot = answers.shape == layout.shape and lib.is_of_kind(answers.dtype, "bool")
    remedy = _ONE_HOT if is_one_hot else remedy_for_labels(lib.name, answers.dtype)
    raise TypeError(
        "reference_answers must be class ids of an integer dtype or probabilities of a real floating dtype, "
        f"not {answers.dtype}{remedy}"
    )


def check_shape_of_ids(answers: ShapeAndDtype, layout: Layout) -> None:
    axis, given = layout.axes[0], answers.shape
    expected = _without(layout.shape, axis)
    if given != expected:
        raise ValueError(
            f"reference_answers must have shape {expected}, which is logits' shape {layout.shape} "
            f"without axis {axis}, not {given}{_remedy_for_ids(given, layout.shape, axis)}"
        )


def class_ids_of(lib: Library, answers: Any, layout: Layout, dtype: Any) -> Any:
    """Return class ids with an axis of length 1 in place of the class axis."""
    # Small dtypes cannot hold every number of classes, and PyTorch indexes with int64 only. Ids that wrap around here
    # become negative: they were out of range before, and still are.
    ids = answers if answers.dtype == dtype else lib.convert(answers, dtype)
    return lib.expand_dims(ids, layout.axes[0])


def _remedy_for_ids(given: tuple[int, ...], shape: tuple[int, ...], axis: int) -> str:
    fitting = [i for i in range(len(shape)) if _without(shape, i) == given]
    if fitting:
        return f"; axis={fitting[0]} would fit"
    if given == shape:
        return _ONE_HOT
    if given == (*shape[:axis], 1, *shape[axis + 1 :]):
        return f": squeeze axis {axis}"
    if len(given) == 1 and given[0] == math.prod(_without(shape, axis)):
        return ": reshape them"
    return _SWAPPED if _is_swapped(given, shape) else ""


def check_shape_of_probabilities(answers: ShapeAndDtype, layout: Layout) -> None:
    given, shape = answers.shape, layout.shape
    if given == shape:
        return
    if given == _without(shape, layout.axes[0]):
        remedy = "; class ids need an integer dtype: cast them"
    else:
        remedy = _SWAPPED if _is_swapped(given, shape) else ""
    raise ValueError(
        f"reference_answers of dtype {answers.dtype} are probabilities and must have logits' shape {shape}, "
        f"not {given}{remedy}"
    )


def _is_swapped(answers: tuple[int, ...], logits: tuple[int, ...]) -> bool:
    """Whether the logits have the shape of class ids for the labels, as if the two were swapped."""
    return any(_without(answers, i) == logits for i in range(len(answers)))


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]
