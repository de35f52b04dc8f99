"""The arguments of statistics: logits of some of the classes, and which classes these are."""

from types import ModuleType
from typing import Any, NamedTuple

from stable_softmax._arguments._answers import Kind, check_shape_of_ids, class_ids_of
from stable_softmax._arguments._arrays import default_dtype, index_of, is_of_kind, layout_along, together
from stable_softmax._arguments._values import first_false
from stable_softmax._execution._plan import Layout
from stable_softmax._libraries import is_array, is_eager
from stable_softmax._maths._conversion import converted
from stable_softmax._maths._labels import relative_ids


class Part(NamedTuple):
    """Some of the classes."""

    xp: ModuleType
    #: Its result has the dtype that the work is done in.
    layout: Layout
    logits: Any
    #: Relative to the first of these classes; -1 without answers.
    class_ids: Any


def part_of_classes(logits: Any, reference_answers: Any, axis: Any, first_class: Any) -> Part:
    """Check all arguments of statistics."""
    first_class = _first_class_of(first_class)
    first_array = first_class if is_array(first_class) else None
    xp, logits, answers, first_array = together(
        {"logits": logits}, reference_answers=reference_answers, first_class=first_array
    )
    if first_array is None:
        _check_range(xp, first_class)
    elif not is_of_kind(xp, first_array.dtype, "integral"):
        raise _no_integer(first_class)
    layout = layout_along(xp, logits, axis, None)
    layout = layout._replace(dtype=layout.working)
    if answers is None:
        return Part(xp, layout, logits, _no_class_ids(xp, logits, layout))
    if not is_of_kind(xp, answers.dtype, "integral"):
        raise TypeError(f"reference_answers must be class ids of an integer dtype, not {answers.dtype}")
    check_shape_of_ids(Kind(tuple(answers.shape), answers.dtype), layout)
    ids = class_ids_of(xp, answers, layout)
    # Where conversion wraps around, it is to a negative number.
    first = first_class if first_array is None else converted(xp, first_array, ids.dtype)
    return Part(xp, layout, logits, relative_ids(xp, ids, first))


def check_labels(xp: ModuleType, weight: Any) -> None:
    """Raise for the first example whose label is in no part, or in several, where values can be read for free."""
    if not is_eager(xp, weight) or xp.all(weight == 1):
        return
    position, parts = first_false(xp, weight == 1, weight)
    found = "none" if parts == 0 else f"{parts:.0f}"
    raise ValueError(
        "each of reference_answers must be a class of exactly one part, "
        f"but that at position {position} is of {found}: is first_class right for each?"
    )


def _first_class_of(first_class: Any) -> Any:
    """Return an integer as Python's own, and an array without dimensions as it is."""
    try:
        index = index_of(first_class)
    except (TypeError, RuntimeError):  # the latter of PyTorch, of a tensor without a value
        if is_array(first_class) and first_class.ndim == 0:
            return first_class
        raise _no_integer(first_class) from None
    if index < 0:
        raise ValueError(f"first_class must not be negative, but is {index}")
    return index


def _check_range(xp: ModuleType, first_class: int) -> None:
    dtype = default_dtype(xp, "integral")
    largest = xp.iinfo(dtype).max
    if first_class > largest:
        raise ValueError(
            f"first_class must lie in [0, {largest}], the range of class ids in {dtype}, but is {first_class}"
        )


def _no_integer(first_class: Any) -> TypeError:
    return TypeError(f"first_class must be an integer, not {first_class!r}")


def _no_class_ids(xp: ModuleType, logits: Any, layout: Layout) -> Any:
    (axis,) = layout.axes
    if layout.has_classes:
        rows = logits[(slice(None),) * axis + (slice(0, 1), ...)]
    else:
        rows = xp.sum(logits, axis=axis, keepdims=True)
    return xp.full_like(rows, -1, dtype=default_dtype(xp, "integral"))
