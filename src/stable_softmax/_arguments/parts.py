"""The arguments of `softmax_statistics`: logits of some of the classes, and which classes these are."""

from typing import Any, NamedTuple

from stable_softmax._arguments.answers import ShapeAndDtype, check_shape_of_ids, class_ids_of
from stable_softmax._arguments.arrays import index_of, layout_along
from stable_softmax._arguments.values import first_false
from stable_softmax._core.layout import Layout
from stable_softmax._libraries import is_array
from stable_softmax._libraries.common import common_library
from stable_softmax._libraries.standard import Library
from stable_softmax._maths.labels import relative_ids


class LogitsOfPart(NamedTuple):
    """The checked arguments of `softmax_statistics`."""

    lib: Library
    #: The dtype of its result is that of the computation.
    layout: Layout
    logits: Any
    #: Relative to the first of these classes; -1 without labels.
    class_ids: Any


def part_of_classes(logits: Any, reference_answers: Any, axis: Any, first_class: Any) -> LogitsOfPart:
    """Check all arguments of `softmax_statistics`."""
    first_class = _first_class_of(first_class)
    first_array = first_class if is_array(first_class) else None
    given = {"logits": logits, "reference_answers": reference_answers, "first_class": first_array}
    lib, own = common_library({name: array for name, array in given.items() if array is not None or name == "logits"})
    logits, answers, first_array = (own.get(name) for name in given)
    if first_array is None:
        _check_range(lib, first_class)
    elif not lib.is_of_kind(first_array.dtype, "integral"):
        raise _integer_error(first_class)
    layout = layout_along(lib, tuple(logits.shape), logits.dtype, axis, None)
    layout = layout._replace(dtype=layout.working)
    if answers is None:
        return LogitsOfPart(lib, layout, logits, _no_class_ids(lib, logits, layout))
    if not lib.is_of_kind(answers.dtype, "integral"):
        raise TypeError(f"reference_answers must be class ids of an integer dtype, not {answers.dtype}")
    check_shape_of_ids(ShapeAndDtype(tuple(answers.shape), answers.dtype), layout)
    ids = class_ids_of(lib, answers, layout, lib.default_dtype("integral"))
    # A conversion that wraps around gives a negative number.
    first = first_class if first_array is None else lib.convert(first_array, ids.dtype)
    return LogitsOfPart(lib, layout, logits, relative_ids(lib, ids, first))


def check_labels(lib: Library, weight: Any) -> None:
    """On eager CPU arrays, raise for the first example whose label is in no part or in several parts."""
    if not lib.for_arrays(weight).reads_values or lib.xp.all(weight == 1):
        return
    position, parts = first_false(lib, weight == 1, weight)
    found = "none" if parts == 0 else f"{parts:.0f}"
    raise ValueError(
        "each label in reference_answers must be a class of exactly one part, "
        f"but the label at position {position} is in {found}: is first_class right for each part?"
    )


def _first_class_of(first_class: Any) -> Any:
    """Return an integer as a Python int, and a 0-d array unchanged."""
    try:
        index = index_of(first_class)
    except (TypeError, RuntimeError):  # the latter of PyTorch, of a tensor without a value
        if is_array(first_class) and first_class.ndim == 0:
            return first_class
        raise _integer_error(first_class) from None
    if index < 0:
        raise ValueError(f"first_class must not be negative, but is {index}")
    return index


def _check_range(lib: Library, first_class: int) -> None:
    dtype = lib.default_dtype("integral")
    largest = lib.xp.iinfo(dtype).max
    if first_class > largest:
        raise ValueError(
            f"first_class must lie in [0, {largest}], the range of class ids in {dtype}, but is {first_class}"
        )


def _integer_error(first_class: Any) -> TypeError:
    return TypeError(f"first_class must be an integer, not {first_class!r}")


def _no_class_ids(lib: Library, logits: Any, layout: Layout) -> Any:
    (axis,) = layout.axes
    if layout.has_classes:
        rows = logits[(slice(None),) * axis + (slice(0, 1), ...)]
    else:
        rows = lib.xp.sum(logits, axis=axis, keepdims=True)
    return lib.xp.full_like(rows, -1, dtype=lib.default_dtype("integral"))
