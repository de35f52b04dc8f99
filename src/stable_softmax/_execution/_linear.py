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
from stable_softmax._libraries._operations import is_known, sweep_factor
from stable_softmax._libraries._sweeps import swept
from stable_softmax._maths import _objective, _pieces, _projection
from stable_softmax._maths._conversion import converted
from stable_softmax._maths._sums import sum_of_products
from stable_softmax._maths._targets import Criterion, counted_of

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

    @property
    def variables(self) -> int:
        """The number of arrays, the first ones, that there are gradients of."""
        return 3 if "bias" in self.names else 2


def losses(xp: ModuleType, *arrays: Any, settings: Settings) -> Any:
    """Return the loss of each row, over the divisor, in a column."""
    return _swept(xp, _losses_of_block, arrays, settings)[0][0]


def losses_and_gradients(xp: ModuleType, *arrays: Any, settings: Settings) -> tuple[Any, tuple[Any, ...]]:
    """Return also the gradients of their sum, with respect to features, weight and bias, if there is one."""
    (values, of_features), sums = _swept(xp, _gradients_of_block, arrays, settings)
    return values, (of_features, *sums)


def total(xp: ModuleType, *arrays: Any, settings: Settings) -> Any:
    """Return the sum of the losses.

    Its derivatives with respect to features, weight and bias come from the sweep that computes it. With respect to
    the options' arrays, they come from computing each block again.
    """
    options = dict(zip(settings.names, arrays[2:], strict=True))
    floating = [options[name] for name in _DIFFERENTIABLE & options.keys()]
    function = _TOTALS[settings.variables] if is_constant(xp, *floating) else _total
    return function(xp, *arrays, settings=settings)


_DIFFERENTIABLE = {"probabilities", "class_weights", "label_smoothing", "z_loss"}


def _swept(xp: ModuleType, function: Any, arrays: tuple[Any, ...], settings: Settings) -> Any:
    names = ("features", "weight", *settings.names)
    given = dict(zip(names, arrays, strict=True))
    if "where" in names:
        given["weight"] = _projection.without_excluded(xp, given["weight"], given["where"])
        if "bias" in names:
            given["bias"] = _projection.without_excluded(xp, given["bias"], given["where"])
    in_rows = tuple(
        name in ("features", "class_ids", "probabilities") or (name == "where" and given[name].shape[0] != 1)
        for name in names
    )
    size = settings.block_size or _rows_of_block(xp, given["features"], given["weight"], settings.working)
    return swept(xp, partial(function, xp, settings), tuple(given.values()), in_rows, size)


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
    #: What the cap is put on.
    projection: Any
    logits: Any
    layout: Layout


def _block_of(xp: ModuleType, settings: Settings, features: Any, weight: Any, *others: Any) -> _Block:
    fields = dict(zip(settings.names, others, strict=True)) | dict(settings.numbers)
    bias = fields.pop("bias", None)
    criterion = Criterion(**fields)
    features = _projection.of_counted(xp, features, counted_of(xp, criterion, axis=1))
    projection = _projection.projected(xp, features, weight, bias, settings.working)
    logits = projection if settings.softcap is None else _projection.capped(xp, projection, softcap=settings.softcap)
    layout = Layout(tuple(logits.shape), (1,), settings.working, settings.working)
    return _Block(features, weight, criterion, projection, logits, layout)


def _losses_of_block(xp: ModuleType, settings: Settings, _: None, *arrays: Any) -> tuple[list[Any], list[Any]]:
    block = _block_of(xp, settings, *arrays)
    options: Any = {"results": ("rows",), "pieces": _pieces.LOSSES}
    return [_execution.run(_objective.losses, xp, block.layout, block.logits, *block.criterion, **options)], []


def _gradients_of_block(xp: ModuleType, settings: Settings, sums: Any, *arrays: Any) -> tuple[list[Any], list[Any]]:
    block = _block_of(xp, settings, *arrays)
    values, gradient = _execution.run(
        _objective.losses_and_gradient, xp, block.layout, block.logits, *block.criterion, results=("rows", "classes")
    )
    if settings.softcap is not None:
        gradient = gradient * _projection.slope_of_cap(xp, block.projection, settings.softcap)
    has_bias = "bias" in settings.names
    of_features, sums = _projection.pulled_back(xp, gradient, block.features, block.weight, has_bias, sums)
    return [values, of_features], sums


def _total(xp: ModuleType, *arrays: Any, settings: Settings) -> Any:
    return _execution.total(xp, losses(xp, *arrays, settings=settings))


def _total_and_gradients(xp: ModuleType, *arrays: Any, settings: Settings) -> tuple[Any, tuple[Any, ...]]:
    values, gradients = losses_and_gradients(xp, *arrays, settings=settings)
    converted_gradients = [converted(xp, g, a.dtype) for g, a in zip(gradients, arrays, strict=False)]
    return _execution.total(xp, values), tuple(converted_gradients)


def _total_jvp(xp: ModuleType, *arrays: Any, settings: Settings) -> tuple[Any, Any]:
    vectors, arrays = arrays[: settings.variables], arrays[settings.variables :]
    values, gradients = losses_and_gradients(xp, *arrays, settings=settings)
    slopes = [
        sum_of_products(xp, gradient, converted(xp, vector, gradient.dtype), tuple(range(gradient.ndim)))
        for gradient, vector in zip(gradients, vectors, strict=True)
    ]
    return _execution.total(xp, values), sum(xp.reshape(slope, ()) for slope in slopes)


def _total_vjp(xp: ModuleType, cotangent: Any, *arrays: Any, settings: Settings) -> tuple[Any, ...]:
    _, gradients = _total_and_gradients(xp, *arrays, settings=settings)
    return tuple(converted(xp, cotangent * gradient, gradient.dtype) for gradient in gradients)


_TOTALS = {
    variables: Differentiable(_total, _total_jvp, _total_vjp, _total_and_gradients, variables) for variables in (2, 3)
}
