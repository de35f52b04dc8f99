"""The arguments of `softmax_statistics` and of the loss of its results."""

from numbers import Real
from typing import Any, NamedTuple

from stable_softmax._arguments.answers import ShapeAndDtype, check_shape_of_ids, class_ids_of
from stable_softmax._arguments.arrays import index_of, layout_along, where_of
from stable_softmax._arguments.options import (
    NO_OPTIONS,
    Options,
    check_reduction,
    checked_class_weights,
    checked_example_weights,
    divisor_of,
    ignored_id_of,
    number_of_examples,
    total_weight,
    with_own_arrays,
)
from stable_softmax._arguments.types import Reduction
from stable_softmax._arguments.values import checked_number, first_false
from stable_softmax._core.criterion import Criterion
from stable_softmax._core.layout import Layout
from stable_softmax._libraries import is_array
from stable_softmax._libraries.remedies import remedy_for_labels
from stable_softmax._libraries.standard import Library
from stable_softmax._maths.labels import relative_ids
from stable_softmax._maths.targets import is_off


class LogitsOfPart(NamedTuple):
    """The checked arguments of `softmax_statistics`."""

    lib: Library
    #: The dtype of its result is that of the computation.
    layout: Layout
    logits: Any
    #: Its class ids are relative to the first of these classes, and -1 without labels. Examples are ignored by a weight
    #: of 0, not by their label. Smoothing is a number for each example.
    criterion: Criterion


def part_of_classes(logits: Any, reference_answers: Any, axis: Any, first_class: Any, **options: Any) -> LogitsOfPart:
    """Check all arguments of `softmax_statistics`."""
    first_class = _first_class_of(first_class)
    first_array = first_class if is_array(first_class) else None
    given = {"logits": logits, "reference_answers": reference_answers, "first_class": first_array}
    given = {name: array for name, array in given.items() if array is not None or name == "logits"}
    lib, own, checked = with_own_arrays(given, NO_OPTIONS._replace(**options))
    logits, answers, first_array = own["logits"], own.get("reference_answers"), own.get("first_class")
    if first_array is None:
        _check_range(lib, first_class)
    elif not lib.is_of_kind(first_array.dtype, "integral"):
        raise _integer_error(first_class)
    layout = layout_along(lib, tuple(logits.shape), logits.dtype, axis, None)
    layout = layout._replace(dtype=layout.working)
    where = None if checked.where is None else where_of(lib, checked.where, layout)
    if answers is None:
        _check_no_options_of_labels(options)
        criterion = Criterion(class_ids=_no_class_ids(lib, logits, layout), where=where)
        return LogitsOfPart(lib, layout, logits, criterion)
    if not lib.is_of_kind(answers.dtype, "integral"):
        remedy = remedy_for_labels(lib.name, answers.dtype)
        raise TypeError(f"reference_answers must be class ids of an integer dtype, not {answers.dtype}{remedy}")
    check_shape_of_ids(ShapeAndDtype(tuple(answers.shape), answers.dtype), layout)
    ids = class_ids_of(lib, answers, layout, lib.default_dtype("integral"))
    # A conversion that wraps around gives a negative number.
    first = first_class if first_array is None else lib.convert(first_array, ids.dtype)
    weights = checked.class_weights
    if weights is not None:
        weights = checked_class_weights(lib, weights, layout, is_relative=False, has_dtype=False)
    smoothing = checked_number(lib, "label_smoothing", checked.label_smoothing, layout, largest=1.0)
    criterion = Criterion(
        class_ids=relative_ids(lib, ids, first),
        where=where,
        class_weights=weights,
        example_weights=_weights_of_examples(lib, ids, reference_answers, checked, layout),
        label_smoothing=0.0 if is_off(smoothing) else lib.xp.zeros_like(ids, dtype=layout.working) + smoothing,
    )
    return LogitsOfPart(lib, layout, logits, criterion)


def criterion_of_losses(
    maximum: Any, example_weight: Any, class_weight: Any, label_smoothing: Any, z_loss: Any, reduction: Reduction
) -> Criterion:
    """Check the options of the loss of statistics, and put them with those that the statistics have."""
    check_reduction(reduction)
    lib, own, options = with_own_arrays({"maximum": maximum}, NO_OPTIONS._replace(z_loss=z_loss))
    dtype = maximum.dtype
    examples = Layout(tuple(own["maximum"].shape), (), dtype, dtype)
    weights = [weight for weight in (example_weight, class_weight) if weight is not None]
    divisor: Any = 1 if weights else divisor_of(examples, reduction)
    if weights and reduction == "mean":
        if example_weight is not None and class_weight is not None:  # where no part has the label, it may be NaN
            weights = [example_weight * lib.xp.where(example_weight == 0, 0, class_weight)]
        divisor = total_weight(lib, weights[0], examples)
    elif divisor is None:
        divisor = number_of_examples(lib, maximum, examples)
    largest = float(lib.xp.finfo(dtype).max) / 2
    return Criterion(
        example_weights=example_weight,
        label_smoothing=0.0 if label_smoothing is None else label_smoothing,
        z_loss=checked_number(lib, "z_loss", options.z_loss, examples, largest),
        divisor=divisor,
    )


def check_labels(lib: Library, weight: Any, example_weight: Any) -> None:
    """On eager CPU arrays, raise for the first example that counts whose label is in no part or in several parts."""
    if not lib.for_arrays(weight).reads_values:
        return
    good = weight == 1
    if example_weight is not None:
        good = good | (example_weight == 0)
    if lib.xp.all(good):
        return
    position, parts = first_false(lib, good, weight)
    found = "none" if parts == 0 else f"{parts:.0f}"
    raise ValueError(
        "each label in reference_answers must be a class of exactly one part, but the label at position "
        f"{position} is in {found}: is first_class right for each part, and does where keep the label?"
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


def _check_no_options_of_labels(options: dict[str, Any]) -> None:
    for name, value in options.items():
        is_zero = name == "label_smoothing" and isinstance(value, Real) and value == 0
        if name != "where" and value is not None and not is_zero:
            raise ValueError(f"{name} needs labels: pass reference_answers, too")


def _weights_of_examples(lib: Library, ids: Any, answers: Any, options: Options, layout: Layout) -> Any:
    """Return what each example counts, 0 for those whose label is to be ignored; None if all count 1."""
    weights = None
    if options.example_weights is not None:
        weights = checked_example_weights(lib, options.example_weights, layout, is_relative=False, has_dtype=False)
    if options.ignore_index is None:
        return weights
    ignored_id = ignored_id_of(lib, options.ignore_index, answers, holds_ids=True)
    if ignored_id is None:
        return weights
    return lib.xp.where(
        ids == ignored_id, 0, lib.xp.ones_like(ids, dtype=layout.working) if weights is None else weights
    )


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
