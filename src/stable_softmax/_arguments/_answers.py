"""Reference answers: class ids or probabilities, by dtype and shape."""

import math
from types import ModuleType
from typing import Any, NamedTuple

from stable_softmax._arguments._arrays import default_dtype, is_of_kind
from stable_softmax._execution._plan import Layout
from stable_softmax._libraries._operations import with_axis
from stable_softmax._maths._conversion import converted

_ONE_HOT = "; one-hot rows count as probabilities: convert them to floating"
_SWAPPED = "; are logits and reference_answers swapped?"


class Kind(NamedTuple):
    """What an array is but for its values."""

    shape: tuple[int, ...]
    dtype: Any


def holds_class_ids(xp: ModuleType, answers: Kind, layout: Layout) -> bool:
    if is_of_kind(xp, answers.dtype, "integral", "real floating"):
        return is_of_kind(xp, answers.dtype, "integral")
    is_one_hot = answers.shape == layout.shape and is_of_kind(xp, answers.dtype, "bool")
    raise TypeError(
        "reference_answers must be class ids of an integer dtype or probabilities of a real floating dtype, "
        f"not {answers.dtype}{_ONE_HOT if is_one_hot else ''}"
    )


def check_shape_of_ids(answers: Kind, layout: Layout) -> None:
    axis, given = layout.axes[0], answers.shape
    expected = _without(layout.shape, axis)
    if given != expected:
        raise ValueError(
            f"reference_answers must have shape {expected}, which is logits' shape {layout.shape} "
            f"without axis {axis}, not {given}{_remedy_for_ids(given, layout.shape, axis)}"
        )


def class_ids_of(xp: ModuleType, answers: Any, layout: Layout) -> Any:
    """Return class ids with an axis of length 1 in the place of the class axis."""
    # The small dtypes cannot hold every class count, and PyTorch indexes with int64 only. Ids that wrap around here
    # become negative: they were out of range before, and still are.
    return with_axis(xp, converted(xp, answers, default_dtype(xp, "integral")), layout.axes[0])


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


def check_shape_of_probabilities(answers: Kind, layout: Layout) -> None:
    given, shape = answers.shape, layout.shape
    if given == shape:
        return
    if given == _without(shape, layout.axes[0]):
        remedy = "; class ids need an integer dtype: cast them"
    else:
        remedy = _SWAPPED if _is_swapped(given, shape) else ""
    raise ValueError(
        f"reference_answers must have logits' shape {shape} when they are probabilities, "
        f"as of dtype {answers.dtype}, not {given}{remedy}"
    )


def _is_swapped(answers: tuple[int, ...], logits: tuple[int, ...]) -> bool:
    """Return whether what came as logits has the shape of class ids of what came as answers."""
    return any(_without(answers, i) == logits for i in range(len(answers)))


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]
