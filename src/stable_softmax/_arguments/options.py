"""The arguments of a loss, checked and converted to the form that the computation needs."""

import math
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from stable_softmax._arguments.answers import (
    ShapeAndDtype,
    check_shape_of_ids,
    check_shape_of_probabilities,
    class_ids_of,
    holds_class_ids,
)
from stable_softmax._arguments.arrays import (
    cached_if_possible,
    index_of,
    layout_along,
    not_real_error,
    plain_index,
    remedy_for_index,
    where_of,
)
from stable_softmax._arguments.class_axes import ClassAxes, class_axes_of, merged_arguments
from stable_softmax._arguments.types import Reduction
from stable_softmax._arguments.values import check_class_ids, checked_number, checked_probabilities, checked_weights
from stable_softmax._core.criterion import Criterion
from stable_softmax._core.layout import Layout, Result
from stable_softmax._execution.run import apply, total
from stable_softmax._libraries import is_array
from stable_softmax._libraries.common import common_library, is_of_numpy
from stable_softmax._libraries.standard import Library
from stable_softmax._maths.targets import is_off, over_square, scale_root, weights_in_divisor


class Loss(NamedTuple):
    """The checked arguments of a loss."""

    lib: Library
    layout: Layout
    logits: Any
    criterion: Criterion
    #: Shape of the losses: "examples", or "total" if they are summed.
    rows: Result
    #: The vector to multiply the Hessian by, if any.
    vector: Any
    #: Several class axes, which were made one; None for one.
    class_axes: ClassAxes | None


class Options(NamedTuple):
    """The options of a loss as the caller passes them."""

    where: Any
    class_weights: Any
    example_weights: Any
    label_smoothing: Any
    ignore_index: Any
    z_loss: Any
    reduction: Reduction
    dtype: Any


NO_OPTIONS = Options(
    where=None,
    class_weights=None,
    example_weights=None,
    label_smoothing=0.0,
    ignore_index=None,
    z_loss=0.0,
    reduction="none",
    dtype=None,
)


def loss_of(logits: Any, reference_answers: Any, axis: int | tuple[int, ...], options: Options, **vector: Any) -> Loss:
    """Check all arguments of a loss, and the vector of a Hessian product."""
    given = {"logits": logits, "reference_answers": reference_answers, **vector}
    lib, own, options = with_own_arrays(given, options)
    class_axes = None
    if isinstance(axis, tuple):
        class_axes = class_axes_of(tuple(own["logits"].shape), axis)
        masked = own if options.where is None else {**own, "where": options.where}
        own, axis = merged_arguments(lib, class_axes, masked), class_axes.others
        options = options._replace(where=own.get("where"))
    logits = own["logits"]
    axis = axis if type(axis) is int else plain_index(axis)
    layout, criterion = criterion_of(
        lib, tuple(logits.shape), logits.dtype, reference_answers, own["reference_answers"], axis, options
    )
    if vector:
        _check_vector(lib, own["vector"], layout)
    rows: Result = "examples" if options.reduction == "none" else "total"
    return Loss(lib, layout, logits, criterion, rows, own.get("vector"), class_axes)


def with_own_arrays(given: dict[str, Any], options: Options) -> tuple[Library, dict[str, Any], Options]:
    """Return the library that all arrays share, the arrays converted to it, and the options with their arrays.

    The dtype of the result depends on the first array.
    """
    arrays = {}
    is_plain = options.where is options.class_weights is options.example_weights is None
    if not (is_plain and type(options.label_smoothing) is type(options.z_loss) is float):
        numbers = {name: _number(name, getattr(options, name)) for name in ("label_smoothing", "z_loss")}
        options = options._replace(**numbers)
        arrays = {name: getattr(options, name) for name in ("where", "class_weights", "example_weights")}
        arrays = {name: array for name, array in arrays.items() if array is not None}
        arrays |= {name: number for name, number in numbers.items() if not isinstance(number, Real)}
        given = given | arrays
    lib, own = common_library(given)
    if own is given:
        return lib, own, options
    changes = {name: own[name] for name in arrays}
    if options.dtype is None:
        changes["dtype"] = lib.autocast_dtype(next(iter(own.values())))
    return lib, own, options._replace(**changes)


def criterion_of(
    lib: Library,
    shape: tuple[int, ...],
    logits_dtype: Any,
    reference_answers: Any,
    answers: Any,
    axis: Any,
    options: Options,
) -> tuple[Layout, Criterion]:
    """Check labels, given as the caller passed them and as an array of the library, and options."""
    smoothing, z_loss, reduction, dtype = options.label_smoothing, options.z_loss, options.reduction, options.dtype
    kind = tuple(answers.shape), answers.dtype
    plan = _plan(lib, shape, logits_dtype, *kind, axis, smoothing, z_loss, reduction, dtype)
    layout, ignored_id = plan.layout, None
    where = None if options.where is None else where_of(lib, options.where, layout)
    if options.ignore_index is not None:
        ignored_id = ignored_id_of(lib, options.ignore_index, reference_answers, plan.holds_ids)
    weights = examples = None
    if options.example_weights is not None:
        examples = checked_example_weights(lib, options.example_weights, layout, reduction == "mean")
    class_ids, probabilities, are_valid = _labels_of(lib, plan, answers, where, ignored_id, examples)
    if options.class_weights is not None:
        weights = checked_class_weights(lib, options.class_weights, layout, reduction == "mean" and plan.holds_ids)
    criterion = Criterion(
        class_ids=class_ids,
        probabilities=probabilities,
        where=where,
        class_weights=weights,
        example_weights=examples,
        label_smoothing=plan.label_smoothing,
        z_loss=plan.z_loss,
        divisor=plan.divisor,
        ignored_id=ignored_id,
        are_valid=are_valid,
        is_label=plan.is_label and where is weights is examples is ignored_id is None,
    )
    is_weighted = examples is not None or (plan.holds_ids and not (weights is None and ignored_id is None))
    if reduction == "mean" and is_weighted:
        criterion = _with_weight_divisor(lib, criterion, layout)
    elif plan.divisor is None:
        criterion = criterion._replace(divisor=number_of_examples(lib, answers, layout))
    return layout, criterion


class _Plan(NamedTuple):
    """Everything about the arguments of a loss that does not depend on values of arrays."""

    layout: Layout
    holds_ids: bool
    #: The dtype of class ids.
    id_dtype: Any
    label_smoothing: Any
    z_loss: Any
    #: Divisor of the losses unless it is the sum of their weights: the number of examples for a mean, else 1. None for
    #: a number that is unknown while a program is traced.
    divisor: int | None
    #: Whether labels are class ids, neither label_smoothing nor z_loss has an effect, and the divisor is known.
    is_label: bool


@cached_if_possible
def _plan(
    lib: Library,
    shape: tuple[int, ...],
    logits_dtype: Any,
    shape_of_answers: tuple[int, ...],
    dtype_of_answers: Any,
    axis: int,
    label_smoothing: Any,
    z_loss: Any,
    reduction: Reduction,
    dtype: Any,
) -> _Plan:
    check_reduction(reduction)
    layout = layout_along(lib, shape, logits_dtype, axis, dtype)
    if not layout.has_classes:
        raise ValueError(f"logits must have at least one class along axis {axis}, but its shape is {shape}")
    answers = ShapeAndDtype(shape_of_answers, dtype_of_answers)
    holds_ids = holds_class_ids(lib, answers, layout)
    check_shape = check_shape_of_ids if holds_ids else check_shape_of_probabilities
    check_shape(answers, layout)
    largest = float(lib.xp.finfo(layout.working).max) / 2
    label_smoothing = checked_number(lib, "label_smoothing", label_smoothing, layout, largest=1.0)
    z_loss = checked_number(lib, "z_loss", z_loss, layout, largest)
    divisor = divisor_of(layout, reduction)
    is_label = holds_ids and is_off(label_smoothing) and is_off(z_loss) and divisor is not None
    return _Plan(layout, holds_ids, lib.default_dtype("integral"), label_smoothing, z_loss, divisor, is_label)


def _labels_of(
    lib: Library, plan: _Plan, answers: Any, where: Any, ignored_id: int | None, example_weights: Any
) -> tuple[Any, Any, bool]:
    """Check labels, and return class ids, target probabilities, and whether all class ids are known to be valid."""
    layout = plan.layout
    if not plan.holds_ids:
        return None, checked_probabilities(lib, answers, where, example_weights, layout.working), False
    class_ids = class_ids_of(lib, answers, layout, plan.id_dtype)
    return class_ids, None, check_class_ids(lib, class_ids, where, ignored_id, example_weights, answers, layout)


def _number(name: str, value: Any) -> Any:
    """Check a number or 0-d array, and return it; a 0-d array of NumPy becomes a scalar."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number and not (is_array(value) and value.ndim == 0):
        raise TypeError(f"{name} must be a real number, not {value!r}")
    return value


def check_reduction(reduction: object) -> None:
    # An array would be compared entry by entry.
    name = reduction if isinstance(reduction, str) else str(reduction) if reduction is None else ""
    if name in ("none", "mean", "sum"):
        return
    meant = {"avg": "mean", "average": "mean", "batchmean": "mean"}.get(name, name.lower())
    hint = f"; did you mean {meant!r}?" if meant in ("none", "mean", "sum") else ""
    raise ValueError(f"reduction must be 'none', 'mean' or 'sum', not {reduction!r}{hint}")


def _check_vector(lib: Library, vector: Any, layout: Layout) -> None:
    if not lib.is_of_kind(vector.dtype, "real floating", "integral"):
        raise not_real_error("vector", vector.dtype)
    if tuple(vector.shape) != layout.shape:
        raise ValueError(f"vector must have logits' shape {layout.shape}, not {tuple(vector.shape)}")


def checked_class_weights(
    lib: Library, class_weights: Any, layout: Layout, is_relative: bool, has_dtype: bool = True
) -> Any:
    """Check class weights, and return them with as many dimensions as the logits."""
    axis, classes = layout.axes[0], layout.shape[layout.axes[0]]
    weights = _weights_of(lib, "class_weights", class_weights, (classes,), "class", layout, is_relative, has_dtype)
    return lib.xp.reshape(weights, tuple(classes if i == axis else 1 for i in range(len(layout.shape))))


def checked_example_weights(
    lib: Library, example_weights: Any, layout: Layout, is_relative: bool, has_dtype: bool = True
) -> Any:
    """Check example weights, and return them with an axis of length 1 in place of the class axis."""
    axis = layout.axes[0]
    shape = layout.shape[:axis] + layout.shape[axis + 1 :]
    weights = _weights_of(lib, "example_weights", example_weights, shape, "example", layout, is_relative, has_dtype)
    return lib.expand_dims(weights, axis)


def _weights_of(
    lib: Library,
    name: str,
    weights: Any,
    shape: tuple[int, ...],
    item: str,
    layout: Layout,
    is_relative: bool,
    has_dtype: bool,
) -> Any:
    """Check dtype, shape and values of weights, and return them in a dtype for the computation."""
    if not lib.is_of_kind(weights.dtype, "real floating", "integral"):
        is_bool = lib.is_of_kind(weights.dtype, "bool")
        raise not_real_error(name, weights.dtype, ": convert them to numbers" if is_bool else "")
    if tuple(weights.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, one for each {item}, not {tuple(weights.shape)}")
    return checked_weights(lib, name, weights, layout.working, is_relative, has_dtype)


def ignored_id_of(lib: Library, ignore_index: Any, answers: Any, holds_ids: bool) -> int | None:
    """Return `ignore_index` as class ids hold it after conversion to the default dtype; None if they cannot."""
    try:
        ignored = index_of(ignore_index)
    except TypeError:
        remedy = remedy_for_index(ignore_index)
        raise TypeError(f"ignore_index must be an integer, not {ignore_index!r}{remedy}") from None
    if not holds_ids:
        raise ValueError(
            f"ignore_index needs class ids, but reference_answers are probabilities of dtype {answers.dtype}"
        )
    own = np.iinfo(answers.dtype) if is_of_numpy(answers) else lib.xp.iinfo(answers.dtype)
    if not own.min <= ignored <= own.max:
        return None
    default = lib.xp.iinfo(lib.default_dtype("integral"))
    if is_of_numpy(answers) and lib.takes_numpy:  # ids of NumPy were clipped to the default dtype
        return max(default.min, min(ignored, default.max))
    modulus = default.max - default.min + 1
    return (ignored + modulus // 2) % modulus - modulus // 2


def _with_weight_divisor(lib: Library, criterion: Criterion, layout: Layout) -> Criterion:
    """Return the criterion with the summed weights of all examples that count as its divisor.

    Only the ratios of weights matter then. They are scaled, so that the largest that the divisor is a sum of is near 1.
    """

    def scaled(values: Any, root: Any) -> Any:
        return lib.convert(apply(over_square, lib, values, root), layout.working)

    def with_scaled_class_weights(criterion: Criterion, root: Any) -> Criterion:
        z_loss = criterion.z_loss
        if not is_off(z_loss):
            z_loss = scaled(z_loss * lib.xp.ones_like(root), root)
        return criterion._replace(class_weights=scaled(criterion.class_weights, root), z_loss=z_loss)

    has_class_weights = criterion.class_ids is not None and criterion.class_weights is not None
    if criterion.example_weights is not None:
        examples = criterion.example_weights
        criterion = criterion._replace(example_weights=scaled(examples, scale_root(lib, examples)))
        if has_class_weights:  # so that no product of both leaves the dtype
            criterion = with_scaled_class_weights(criterion, scale_root(lib, criterion.class_weights))
    needed = Criterion(
        class_ids=criterion.class_ids,
        class_weights=criterion.class_weights if has_class_weights else None,
        example_weights=criterion.example_weights,
        ignored_id=criterion.ignored_id,
    )
    weights = apply(partial(weights_in_divisor, axis=layout.axes[0]), lib, needed)
    if has_class_weights:
        root = scale_root(lib, weights)
        weights, criterion = scaled(weights, root), with_scaled_class_weights(criterion, root)
    return criterion._replace(divisor=total_weight(lib, weights, layout))


def divisor_of(layout: Layout, reduction: Reduction) -> int | None:
    """Return the number of examples for a mean, else 1; None for a number that is unknown while a program is traced."""
    if reduction != "mean":
        return 1
    # A list, since PyTorch's compiler refuses a generator here.
    lengths = [length for i, length in enumerate(layout.shape) if i not in layout.axes]
    return None if None in lengths else max(math.prod(lengths), 1)  # the mean over no examples is 0


def number_of_examples(lib: Library, values: Any, layout: Layout) -> Any:
    """Return the number of examples as a divisor, computed when the program runs.

    The values have one entry for each example, or for each of its classes.
    """
    ones = lib.xp.ones_like(values, dtype=layout.working)
    if ones.ndim == len(layout.shape):
        ones = lib.maximum(ones, layout.axes)
    return total_weight(lib, ones, layout)


def total_weight(lib: Library, weights: Any, layout: Layout) -> Any:
    """Return the sum of weights as a divisor; infinity for 0, so that the mean is 0."""
    weight = lib.convert(total(lib, weights), layout.working)
    return lib.xp.reshape(lib.xp.where(weight == 0, lib.xp.inf, weight), (1,) * len(layout.shape))
