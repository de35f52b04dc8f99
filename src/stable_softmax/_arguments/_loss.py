"""All arguments of a loss: checked before any work is done, and in the form that the work takes them."""

import math
from functools import partial
from numbers import Real
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from stable_softmax import _execution
from stable_softmax._arguments import _values
from stable_softmax._arguments._answers import (
    Kind,
    check_shape_of_ids,
    check_shape_of_probabilities,
    class_ids_of,
    holds_class_ids,
)
from stable_softmax._arguments._arrays import (
    default_dtype,
    index_of,
    is_of_kind,
    is_of_numpy,
    kept_for_numpy,
    layout_along,
    plain_index,
    remedy_for_index,
    together,
    where_of,
)
from stable_softmax._arguments._types import Reduction
from stable_softmax._execution._plan import Layout
from stable_softmax._libraries import is_array, is_numpy
from stable_softmax._libraries._operations import autocast_dtype
from stable_softmax._maths._conversion import converted
from stable_softmax._maths._targets import Criterion, example_weights, is_off, over_square, scale_root


class Loss(NamedTuple):
    """The arguments of a loss."""

    xp: ModuleType
    layout: Layout
    logits: Any
    criterion: Criterion
    reduction: Reduction
    #: What to multiply a Hessian with.
    vector: Any


class Options(NamedTuple):
    """The options of a loss."""

    where: Any
    class_weights: Any
    label_smoothing: Any
    ignore_index: Any
    z_loss: Any
    reduction: Reduction
    dtype: Any


def loss_of(logits: Any, reference_answers: Any, axis: int, options: Options, **vector: Any) -> Loss:
    """Check all arguments of a loss, and the vector that goes with a Hessian."""
    required = {"logits": logits, "reference_answers": reference_answers, **vector}
    xp, (logits, answers, *vectors), options = gathered(required, options)
    kind = Kind(tuple(logits.shape), logits.dtype)
    layout, criterion = criterion_of(xp, kind, reference_answers, answers, plain_index(axis), options)
    for array in vectors:
        _check_vector(xp, array, layout)
    return Loss(xp, layout, logits, criterion, options.reduction, *(vectors or [None]))


def gathered(
    required: dict[str, Any], options: Options, **optional: Any
) -> tuple[ModuleType, tuple[Any, ...], Options]:
    """Return the namespace that all arrays share, the arrays as its own, and the options with theirs.

    The first array is the one that the dtype of the result depends on.
    """
    label_smoothing, z_loss = _number("label_smoothing", options.label_smoothing), _number("z_loss", options.z_loss)
    xp, *arrays, where, class_weights, smoothing, penalty = together(
        required,
        **optional,
        where=options.where,
        class_weights=options.class_weights,
        label_smoothing=None if isinstance(label_smoothing, Real) else label_smoothing,
        z_loss=None if isinstance(z_loss, Real) else z_loss,
    )
    label_smoothing = label_smoothing if smoothing is None else smoothing
    z_loss = z_loss if penalty is None else penalty
    dtype = autocast_dtype(xp, arrays[0]) if options.dtype is None else options.dtype
    ignore_index, reduction = options.ignore_index, options.reduction
    own = Options(where, class_weights, label_smoothing, ignore_index, z_loss, reduction, dtype)
    return xp, tuple(arrays), own


def criterion_of(
    xp: ModuleType, logits: Kind, reference_answers: Any, answers: Any, axis: Any, options: Options
) -> tuple[Layout, Criterion]:
    """Check what logits are compared with: answers, as they came and as an array of the library, and options."""
    where, class_weights, label_smoothing, ignore_index, z_loss, reduction, dtype = options
    kind = Kind(tuple(answers.shape), answers.dtype)
    plan = _plan(xp, logits, kind, axis, label_smoothing, z_loss, reduction, dtype)
    layout, holds_ids = plan.layout, plan.holds_ids
    criterion = Criterion(
        class_ids=class_ids_of(xp, answers, layout) if holds_ids else None,
        probabilities=None if holds_ids else answers,
        where=None if where is None else where_of(xp, where, layout),
        class_weights=None if class_weights is None else _class_weights_of(xp, class_weights, layout),
        label_smoothing=plan.label_smoothing,
        z_loss=plan.z_loss,
        divisor=plan.divisor,
        ignored_id=None if ignore_index is None else _ignored_id_of(xp, ignore_index, reference_answers, holds_ids),
    )
    criterion = _values.checked_criterion(xp, criterion, answers, layout, relative=reduction == "mean" and holds_ids)
    if reduction == "mean" and holds_ids and not (class_weights is None and criterion.ignored_id is None):
        criterion = _over_weights(xp, criterion, layout)
    return layout, criterion


class _Plan(NamedTuple):
    """What the arguments of a loss come to but for values of arrays."""

    layout: Layout
    holds_ids: bool
    label_smoothing: Any
    z_loss: Any
    #: What losses are divided by, unless that is the sum of their weights: the number of examples for a mean.
    divisor: int


@kept_for_numpy
def _plan(
    xp: ModuleType,
    logits: Kind,
    answers: Kind,
    axis: int,
    label_smoothing: Any,
    z_loss: Any,
    reduction: Reduction,
    dtype: Any,
) -> _Plan:
    _check_reduction(reduction)
    layout = _layout_of_loss(xp, logits, axis, dtype)
    holds_ids = holds_class_ids(xp, answers, layout)
    check_shape = check_shape_of_ids if holds_ids else check_shape_of_probabilities
    check_shape(answers, layout)
    largest = float(xp.finfo(layout.working).max) / 2
    label_smoothing = _values.checked_number(xp, "label_smoothing", label_smoothing, layout, largest=1.0)
    z_loss = _values.checked_number(xp, "z_loss", z_loss, layout, largest)
    # A list, since the compiler of PyTorch refuses a generator here. The mean over no example is 0.
    number = math.prod([length for i, length in enumerate(layout.shape) if i not in layout.axes])
    divisor = max(number, 1) if reduction == "mean" else 1
    return _Plan(layout, holds_ids, label_smoothing, z_loss, divisor)


def _number(name: str, value: Any) -> Any:
    """Return a number as it is, and an array without dimensions; such arrays of NumPy are numbers."""
    if type(value) is float:
        return value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number and not (is_array(value) and value.ndim == 0):
        raise TypeError(f"{name} must be a real number, not {value!r}")
    return value


def _check_reduction(reduction: object) -> None:
    # An array would be compared entry by entry.
    name = reduction if isinstance(reduction, str) else str(reduction) if reduction is None else ""
    if name in ("none", "mean", "sum"):
        return
    meant = {"avg": "mean", "average": "mean", "batchmean": "mean"}.get(name, name.lower())
    hint = f"; did you mean {meant!r}?" if meant in ("none", "mean", "sum") else ""
    raise ValueError(f"reduction must be 'none', 'mean' or 'sum', not {reduction!r}{hint}")


def _layout_of_loss(xp: ModuleType, logits: Kind, axis: Any, dtype: Any) -> Layout:
    layout = layout_along(xp, logits, axis, dtype)
    if not layout.has_classes:
        raise ValueError(f"logits must have at least one class along axis {axis}, but its shape is {layout.shape}")
    return layout


def _check_vector(xp: ModuleType, vector: Any, layout: Layout) -> None:
    if not is_of_kind(xp, vector.dtype, "real floating", "integral"):
        raise TypeError(f"vector must have a real floating-point or integer dtype, not {vector.dtype}")
    if tuple(vector.shape) != layout.shape:
        raise ValueError(f"vector must have logits' shape {layout.shape}, not {tuple(vector.shape)}")


def _class_weights_of(xp: ModuleType, class_weights: Any, layout: Layout) -> Any:
    """Return class weights, floating, with as many dimensions as the logits."""
    if not is_of_kind(xp, class_weights.dtype, "real floating", "integral"):
        raise TypeError(f"class_weights must have a real floating-point or integer dtype, not {class_weights.dtype}")
    axis, classes = layout.axes[0], layout.shape[layout.axes[0]]
    if tuple(class_weights.shape) != (classes,):
        raise ValueError(
            f"class_weights must have shape ({classes},), one for each class, not {tuple(class_weights.shape)}"
        )
    return xp.reshape(class_weights, tuple(classes if i == axis else 1 for i in range(len(layout.shape))))


def _ignored_id_of(xp: ModuleType, ignore_index: Any, answers: Any, holds_ids: bool) -> int | None:
    """Return the integer that the class id to ignore is once the ids, as they came, have the default dtype, if any."""
    try:
        ignored = index_of(ignore_index)
    except TypeError:
        remedy = remedy_for_index(ignore_index)
        raise TypeError(f"ignore_index must be an integer, not {ignore_index!r}{remedy}") from None
    if not holds_ids:
        raise ValueError(
            f"ignore_index needs class ids, but reference_answers are probabilities of dtype {answers.dtype}"
        )
    own = np.iinfo(answers.dtype) if is_of_numpy(answers) else xp.iinfo(answers.dtype)
    if not own.min <= ignored <= own.max:
        return None
    default = xp.iinfo(default_dtype(xp, "integral"))
    if is_of_numpy(answers) and not is_numpy(xp):  # which have been cut to the default dtype
        return max(default.min, min(ignored, default.max))
    modulus = default.max - default.min + 1
    return (ignored + modulus // 2) % modulus - modulus // 2


def _over_weights(xp: ModuleType, criterion: Criterion, layout: Layout) -> Criterion:
    """Return the criterion with the sum of the weights of all counted examples as its divisor."""
    kernel = partial(example_weights, axis=layout.axes[0], ignored_id=criterion.ignored_id)
    weights = _execution.on_each(kernel, xp, criterion.class_ids, criterion.class_weights)
    if criterion.class_weights is not None:
        root = scale_root(xp, weights)

        def scaled(values: Any) -> Any:
            return converted(xp, _execution.on_each(over_square, xp, values, root), layout.working)

        weights, class_weights, z_loss = scaled(weights), scaled(criterion.class_weights), criterion.z_loss
        if not is_off(z_loss):
            z_loss = scaled(z_loss * xp.ones_like(root))
        criterion = criterion._replace(class_weights=class_weights, z_loss=z_loss)
    total = converted(xp, _execution.total(xp, weights), layout.working)
    divisor = xp.reshape(xp.where(total == 0, xp.inf, total), (1,) * len(layout.shape))
    return criterion._replace(divisor=divisor)
