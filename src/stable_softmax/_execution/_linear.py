"""The loss of projected features, some rows at a time: the logits of all are never there at once.

Blocks are of rows, and not of classes. A block of rows holds all that its loss and gradient need, so that three
products of matrices give both; with blocks of classes, the logits would have to be computed twice. Nor do a few rows
take more memory than the weight: with fewer rows than features, their logits are smaller than it is.
"""

from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

from stable_softmax import _execution
from stable_softmax._execution._plan import Layout
from stable_softmax._libraries import is_constant
from stable_softmax._libraries._differentiable import Differentiable
from stable_softmax._libraries._operations import (
    compiled,
    is_known,
    multiplies_narrow,
    sweep_factor,
    unreported,
)
from stable_softmax._libraries._sweeps import swept
from stable_softmax._maths import _objective, _pieces, _projection
from stable_softmax._maths._conversion import converted
from stable_softmax._maths._sums import sum_of_products
from stable_softmax._maths._targets import Criterion, counted_of, left_of

#: What a block's logits take in memory, times a factor for the device.
_BLOCK_BYTES = 1 << 25
#: A block has at least so many rows, or one for each feature, so that its logits are no larger than the weight.
_ROWS_WORTH_A_PRODUCT = 256
#: But there are so many blocks, unless they have fewer than so many rows.
_LEAST_BLOCKS = 4
_LEAST_ROWS = 64


class Settings(NamedTuple):
    """All about a loss of projected features but its arrays: hashable."""

    #: Of the arrays after features and weight: "bias", and fields of the criterion.
    names: tuple[str, ...]
    #: The other fields of the criterion.
    numbers: tuple[tuple[str, Any], ...]
    softcap: float | None
    #: The dtype that the work is done in.
    working: Any
    #: How many rows a block has; None for what suits the number of classes.
    block_size: int | None
    #: Whether the gradient with respect to features is asked for, that to the weight, and that to the bias, if there is
    #: one. What is not costs nothing.
    wanted: tuple[bool, ...]


def losses(xp: ModuleType, *arrays: Any, settings: Settings) -> Any:
    """Return the loss of each row, over the divisor, in a column."""
    return compiled(xp, _losses, *arrays, settings=settings)


def losses_and_gradients(xp: ModuleType, *arrays: Any, settings: Settings) -> tuple[Any, tuple[Any, ...]]:
    """Return also the gradients of their sum, with respect to features, weight and bias, if there is one.

    They have the dtype that the work is done in. Those that are not wanted are None.
    """
    return compiled(xp, _losses_and_gradients, *arrays, settings=settings)


def total(xp: ModuleType, *arrays: Any, settings: Settings) -> Any:
    """Return the sum of the losses.

    Its derivatives with respect to features, weight and bias come from the sweep that computes it. With respect to
    the options' arrays, they come from computing each block again.
    """
    options = dict(zip(settings.names, arrays[2:], strict=True))
    floating = [options[name] for name in _DIFFERENTIABLE & options.keys()]
    function = _TOTALS[len(settings.wanted)] if is_constant(xp, *floating) else _total
    return function(xp, *arrays, settings=settings)


_DIFFERENTIABLE = {"probabilities", "class_weights", "label_smoothing", "z_loss"}


def _losses(xp: ModuleType, *arrays: Any, settings: Settings) -> Any:
    return _swept(xp, _losses_of_block, arrays, settings)[0][0]


def _losses_and_gradients(xp: ModuleType, *arrays: Any, settings: Settings) -> tuple[Any, tuple[Any, ...]]:
    function = _gradients_of_block if any(settings.wanted) else _losses_of_block
    (values, *of_features), sums = _swept(xp, function, arrays, settings)
    found = iter((*of_features, *sums))
    return values, tuple([next(found) if is_wanted else None for is_wanted in settings.wanted])


def _swept(xp: ModuleType, function: Any, arrays: tuple[Any, ...], settings: Settings) -> Any:
    """Return what a function of blocks gives. All the work of the loss is done in here."""
    given = dict(zip(("features", "weight", *settings.names), arrays, strict=True))
    with unreported(xp):
        # Once, and not for each block, whose derivatives then add up in this dtype and are rounded at the end.
        wide = {"bias"} if multiplies_narrow(xp, given["weight"]) else {"weight", "bias"}
        given |= {name: converted(xp, array, settings.working) for name, array in given.items() if name in wide}
        if "where" in given:
            given["weight"], marks = _projection.finite_and_marks(xp, given["weight"], settings.working)
            given["bias"] = given.get("bias", 0) + marks[:, 0]  # NaN for a class whose weights are not finite
        in_rows = tuple(
            name in ("features", "class_ids", "probabilities") or (name == "where" and array.shape[0] != 1)
            for name, array in given.items()
        )
        size = settings.block_size or _rows_of_block(xp, given["features"], given["weight"], settings.working)
        return swept(xp, partial(function, xp, settings, tuple(given)), tuple(given.values()), in_rows, size)


def _rows_of_block(xp: ModuleType, features: Any, weight: Any, working: Any) -> int:
    (rows, number), classes = features.shape, weight.shape[0]
    if not (is_known(xp, rows) and is_known(xp, classes) and is_known(xp, number)):
        return _LEAST_ROWS
    fitting = sweep_factor(xp, weight) * _BLOCK_BYTES // (classes * xp.finfo(working).bits // 8)
    enough = max(fitting, min(number, _ROWS_WORTH_A_PRODUCT))
    return max(_LEAST_ROWS, min(enough, -(-rows // _LEAST_BLOCKS)))


class _Block(NamedTuple):
    features: Any
    weight: Any
    criterion: Criterion
    #: Which examples count; None if all do.
    counted: Any
    #: What the cap is put on.
    projection: Any
    logits: Any
    layout: Layout


def _block_of(xp: ModuleType, settings: Settings, names: tuple[str, ...], arrays: tuple[Any, ...]) -> _Block:
    fields = dict(zip(names, arrays, strict=True)) | dict(settings.numbers)
    features, weight, bias = (fields.pop(name, None) for name in ("features", "weight", "bias"))
    criterion = Criterion(**fields)
    counted = counted_of(xp, criterion, axis=1)
    features = _projection.of_counted(xp, features, counted)
    terms = [] if bias is None else [bias[None, :]]
    if criterion.where is not None:
        features, marks = _projection.finite_and_marks(xp, features, settings.working)
        terms.append(marks)
    projection = _projection.projected(xp, features, weight, settings.working)
    logits = projection = _execution.on_each(_projection.shifted, xp, projection, *terms)
    if settings.softcap is not None:
        # The derivatives of the cap are products, too, through which NaN would come.
        projection = _projection.of_counted(xp, left_of(xp, criterion, projection), counted)
        logits = _execution.on_each(partial(_projection.capped, softcap=settings.softcap), xp, projection)
    layout = Layout(tuple(logits.shape), (1,), settings.working, settings.working)
    return _Block(features, weight, criterion, counted, projection, logits, layout)


def _losses_of_block(
    xp: ModuleType, settings: Settings, names: tuple[str, ...], _: None, *arrays: Any
) -> tuple[list[Any], list[Any]]:
    block = _block_of(xp, settings, names, arrays)
    options: Any = {"results": ("rows",), "pieces": _pieces.LOSSES}
    return [_execution.run(_objective.losses, xp, block.layout, block.logits, *block.criterion, **options)], []


def _gradients_of_block(
    xp: ModuleType, settings: Settings, names: tuple[str, ...], sums: Any, *arrays: Any
) -> tuple[list[Any], list[Any]]:
    block = _block_of(xp, settings, names, arrays)
    values, gradient = _execution.run(
        _objective.losses_and_gradient, xp, block.layout, block.logits, *block.criterion, results=("rows", "classes")
    )
    if settings.softcap is not None:
        through_cap = partial(_projection.through_cap, softcap=settings.softcap)
        gradient = _execution.on_each(through_cap, xp, gradient, block.projection)
    of_features, sums = _projection.pulled_back(xp, gradient, block.features, block.weight, settings.wanted, sums)
    return [values, *(_projection.of_counted(xp, rows, block.counted) for rows in of_features)], sums


def _total(xp: ModuleType, *arrays: Any, settings: Settings) -> Any:
    return _execution.total(xp, losses(xp, *arrays, settings=settings))


def _total_and_gradients(
    xp: ModuleType, *arrays: Any, settings: Settings, wanted: tuple[bool, ...]
) -> tuple[Any, tuple[Any, ...]]:
    values, gradients = losses_and_gradients(xp, *arrays, settings=settings._replace(wanted=wanted))
    return _execution.total(xp, values), gradients


def _total_jvp(xp: ModuleType, *arrays: Any, settings: Settings) -> tuple[Any, Any]:
    variables = len(settings.wanted)
    vectors, arrays = arrays[:variables], arrays[variables:]
    wanted = tuple(vector is not None for vector in vectors)
    value, gradients = _total_and_gradients(xp, *arrays, settings=settings, wanted=wanted)
    slopes = [
        sum_of_products(xp, gradient, converted(xp, vector, gradient.dtype), tuple(range(gradient.ndim)))
        for gradient, vector in zip(gradients, vectors, strict=True)
        if gradient is not None
    ]
    return value, sum(xp.reshape(slope, ()) for slope in slopes)


def _total_vjp(
    xp: ModuleType, cotangent: Any, *arrays: Any, settings: Settings, wanted: tuple[bool, ...]
) -> tuple[Any, ...]:
    _, gradients = _total_and_gradients(xp, *arrays, settings=settings, wanted=wanted)
    return tuple(
        None if gradient is None else converted(xp, cotangent * gradient, array.dtype)
        for gradient, array in zip(gradients, arrays, strict=False)
    )


_TOTALS = {
    variables: Differentiable(_total, _total_jvp, _total_vjp, _total_and_gradients, variables) for variables in (2, 3)
}
