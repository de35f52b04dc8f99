"""Losses, entropies and divergences of projected features, in blocks of rows: the full logits are never in memory.

A model is features, weight and perhaps bias; a divergence has a second one, whose names start with "reference_".

Blocks hold some rows with all their classes. Three matrix products then give loss and gradient; with blocks of classes,
the logits would have to be computed twice. A few rows take no more memory than the weight: with fewer rows than
features, the logits are smaller than the weight.
"""

from functools import partial
from typing import Any, NamedTuple

from stable_softmax._core.comparison import Comparison
from stable_softmax._core.criterion import DIFFERENTIABLE, Criterion
from stable_softmax._core.kernel import Kernel
from stable_softmax._core.layout import Layout
from stable_softmax._execution.run import apply, run
from stable_softmax._execution.run import total as total_of
from stable_softmax._libraries.differentiable import differentiable
from stable_softmax._libraries.standard import Library
from stable_softmax._maths import kernels, projection
from stable_softmax._maths.sums import sum_of_products
from stable_softmax._maths.targets import counted_of, masked_logits, zero_excluded, zero_uncounted

#: Memory of a block's logits, to be multiplied by a factor for the device.
_BLOCK_BYTES = 1 << 25
#: Least number of rows, or the number of features if that is smaller: no larger logits than the weight.
_ROWS_WORTH_A_PRODUCT = 256
#: At least this many blocks, unless each would have fewer than `_LEAST_ROWS` rows.
_LEAST_BLOCKS = 4
_LEAST_ROWS = 64
#: The arrays of a model.
_OF_MODEL = ("features", "weight", "bias")


class _Objective(NamedTuple):
    """What is computed of the logits of a block."""

    #: The record of the operands that kernels get with the logits.
    operands: type[Criterion] | type[Comparison]
    #: The kernel that gives a value for each row, and that which gives the gradient for each model's logits as well.
    values: Kernel
    gradients: Kernel


_OBJECTIVES = {
    "crossentropy": _Objective(Criterion, kernels.LOSSES, kernels.LOSSES_AND_GRADIENT.on_whole_rows),
    "entropy": _Objective(Comparison, kernels.ENTROPY, kernels.ENTROPY_AND_GRADIENT),
    "kl_divergence": _Objective(Comparison, kernels.KL_DIVERGENCE, kernels.KL_DIVERGENCE_AND_GRADIENTS),
}


class Settings(NamedTuple):
    """All properties of a sweep except its arrays; hashable."""

    #: The name of an objective.
    objective: str
    #: Names of the arrays: those of the models, then fields of the operands.
    names: tuple[str, ...]
    #: The other fields of the operands.
    numbers: tuple[tuple[str, Any], ...]
    #: The cap of each model's logits.
    softcaps: tuple[float | None, ...]
    #: The dtype of the computation.
    working: Any
    #: Number of rows in a block; None to choose it by the number of classes.
    block_size: int | None
    #: Whether the gradient with respect to each array of the models is wanted. The others cost nothing.
    wanted: tuple[bool, ...]

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the names of each model's arrays start with."""
        return ("", "reference_")[: len(self.softcaps)]

    @property
    def wanted_names(self) -> tuple[str, ...]:
        """The names of the arrays whose gradients are wanted."""
        return tuple([name for name, is_wanted in zip(self.names, self.wanted, strict=False) if is_wanted])


def values(lib: Library, *arrays: Any, settings: Settings) -> Any:
    """Return the value of each row, divided by the divisor, as a column."""
    return lib.compiled(_values, *arrays, settings=settings)


def values_and_gradients(lib: Library, *arrays: Any, settings: Settings) -> tuple[Any, tuple[Any, ...]]:
    """Return the values, and the gradients of their sum with respect to each array of the models.

    Gradients have the dtype of the computation. Those that are not wanted are None.
    """
    return lib.compiled(_values_and_gradients, *arrays, settings=settings)


def summary(lib: Library, *arrays: Any, settings: Settings) -> list[Any]:
    """Return columns with the loss, the logsumexp, the entropy and the most probable class of each row."""
    return lib.compiled(_summary, *arrays, settings=settings)


def total(lib: Library, *arrays: Any, settings: Settings) -> Any:
    """Return the sum of the values.

    Derivatives with respect to the models come from the same sweep as the sum. For derivatives with respect to arrays
    of the options, each block is computed again.
    """
    variables = len(settings.wanted)
    options = dict(zip(settings.names[variables:], arrays[variables:], strict=True))
    floating = [options[name] for name in DIFFERENTIABLE if name in options]
    function = _total.value if lib.records(*floating) else _TOTALS[variables]
    return function(lib, *arrays, settings=settings)


@differentiable
def _total(lib: Library, *arrays: Any, settings: Settings) -> Any:
    return total_of(lib, values(lib, *arrays, settings=settings))


@_total.has_value_and_gradient
def _total_and_gradients(
    lib: Library, *arrays: Any, settings: Settings, wanted: tuple[bool, ...]
) -> tuple[Any, tuple[Any, ...]]:
    of_rows, gradients = values_and_gradients(lib, *arrays, settings=settings._replace(wanted=wanted))
    return total_of(lib, of_rows), gradients


@_total.has_jvp
def _(lib: Library, *arrays: Any, settings: Settings) -> tuple[Any, Any]:
    variables = len(settings.wanted)
    vectors, arrays = arrays[:variables], arrays[variables:]
    wanted = tuple(vector is not None for vector in vectors)
    value, gradients = _total_and_gradients(lib, *arrays, settings=settings, wanted=wanted)
    slopes = [
        sum_of_products(lib, gradient, lib.convert(vector, gradient.dtype), tuple(range(gradient.ndim)))
        for gradient, vector in zip(gradients, vectors, strict=True)
        if gradient is not None
    ]
    return value, sum(lib.xp.reshape(slope, ()) for slope in slopes)


@_total.has_vjp
def _(lib: Library, cotangent: Any, *arrays: Any, settings: Settings, wanted: tuple[bool, ...]) -> tuple[Any, ...]:
    _, gradients = _total_and_gradients(lib, *arrays, settings=settings, wanted=wanted)
    return tuple(
        None if gradient is None else lib.convert(cotangent * gradient, array.dtype)
        for gradient, array in zip(gradients, arrays, strict=False)
    )


#: The total by its number of variables: features, weight and perhaps bias, of one model or of two.
_TOTALS = {variables: _total.of_variables(variables) for variables in (2, 3, 4, 5, 6)}


def _values(lib: Library, *arrays: Any, settings: Settings) -> Any:
    return _swept(lib, _values_of_block, arrays, settings)[0][0]


def _values_and_gradients(lib: Library, *arrays: Any, settings: Settings) -> tuple[Any, tuple[Any, ...]]:
    function = _gradients_of_block if any(settings.wanted) else _values_of_block
    (of_rows, *of_features), sums = _swept(lib, function, arrays, settings)
    names = sorted(settings.wanted_names, key=lambda name: not name.endswith("features"))
    found = dict(zip(names, (*of_features, *sums), strict=True))
    return of_rows, tuple([found.get(name) for name, _ in zip(settings.names, settings.wanted, strict=False)])


def _summary(lib: Library, *arrays: Any, settings: Settings) -> list[Any]:
    columns: list[Any] = _swept(lib, _summary_of_block, arrays, settings)[0]
    return columns


def _swept(lib: Library, function: Any, arrays: tuple[Any, ...], settings: Settings) -> Any:
    """Return the results of a function over all blocks: the whole computation."""
    return lib.in_silence(_results_of_blocks, lib, function, arrays, settings)


def _results_of_blocks(lib: Library, function: Any, arrays: tuple[Any, ...], settings: Settings) -> Any:
    given = dict(zip(settings.names, arrays, strict=True))
    for prefix in settings.prefixes:
        given |= _prepared_weight(lib, given, prefix, settings.working)
    in_rows = {name: array for name, array in given.items() if _has_rows(name, array)}
    whole = {name: array for name, array in given.items() if name not in in_rows}

    def of_block(sums: Any, rows: tuple[Any, ...], others: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
        arrays = dict(zip(in_rows, rows, strict=True)) | dict(zip(whole, others, strict=True))
        return function(lib, settings, arrays, sums)

    models = [(given[f"{prefix}features"], given[f"{prefix}weight"]) for prefix in settings.prefixes]
    size = settings.block_size or _rows_of_block(lib, models, settings.working)
    return lib.sweep(of_block, tuple(in_rows.values()), tuple(whole.values()), size)


def _prepared_weight(lib: Library, given: dict[str, Any], prefix: str, working: Any) -> dict[str, Any]:
    """Return weight and bias of a model in the dtype for all blocks, and finite where a mask may exclude classes."""
    weight, bias = given[f"{prefix}weight"], given.get(f"{prefix}bias")
    # Converted once, not in each block: the blocks' derivatives then add up in this dtype, and are rounded once.
    weight = weight if lib.multiplies_narrow(weight) else lib.convert(weight, working)
    bias = None if bias is None else lib.convert(bias, working)
    if "where" in given:
        weight, marks = projection.finite_and_nan_column(lib, weight, working)
        bias = marks[:, 0] + (0 if bias is None else bias)  # NaN for a class whose weights are not finite
    return {f"{prefix}weight": weight} | ({} if bias is None else {f"{prefix}bias": bias})


def _has_rows(name: str, array: Any) -> bool:
    """Whether an array has an entry for each example."""
    return name in ("features", "reference_features", "class_ids", "probabilities", "example_weights") or (
        name == "where" and array.shape[0] != 1
    )


def _rows_of_block(lib: Library, models: list[tuple[Any, Any]], working: Any) -> int:
    (rows, _), classes = models[0][0].shape, models[0][1].shape[0]
    number = max(features.shape[1] for features, _ in models) if lib.is_known(rows) else 0
    if not (lib.is_known(rows) and lib.is_known(classes) and lib.is_known(number)):
        return _LEAST_ROWS
    row = len(models) * classes * lib.bits_of(working) // 8
    enough = max(lib.sweep_factor(models[0][1]) * _BLOCK_BYTES // row, min(number, _ROWS_WORTH_A_PRODUCT))
    return max(_LEAST_ROWS, min(enough, -(-rows // _LEAST_BLOCKS)))


class _Projection(NamedTuple):
    """The logits of a model for the rows of a block."""

    features: Any
    weight: Any
    #: The logits before the cap.
    projected: Any
    logits: Any
    softcap: float | None


class _Block(NamedTuple):
    projections: list[_Projection]
    operands: Any
    #: Mask of the examples that count; None if all do.
    counted: Any
    layout: Layout

    @property
    def logits(self) -> Any:
        return self.projections[0].logits


def _block_of(lib: Library, settings: Settings, arrays: dict[str, Any]) -> _Block:
    fields = arrays | dict(settings.numbers)
    models = [[fields.pop(f"{prefix}{name}", None) for name in _OF_MODEL] for prefix in settings.prefixes]
    operands: Any = _OBJECTIVES[settings.objective].operands(**fields)
    counted = counted_of(lib, operands, axis=1) if isinstance(operands, Criterion) else None
    projections = [
        _projection_of(lib, model, softcap, operands.where, counted, settings.working)
        for model, softcap in zip(models, settings.softcaps, strict=True)
    ]
    if len(projections) == 2:
        operands = operands._replace(reference_logits=projections[1].logits)
    layout = Layout(tuple(projections[0].logits.shape), (1,), settings.working, settings.working)
    return _Block(projections, operands, counted, layout)


def _projection_of(
    lib: Library, model: list[Any], softcap: float | None, where: Any, counted: Any, working: Any
) -> _Projection:
    features, weight, bias = model
    features = zero_uncounted(lib, counted, features)  # products with 0 would pass their NaN on
    terms = [] if bias is None else [bias[None, :]]
    if where is not None:
        features, marks = projection.finite_and_nan_column(lib, features, working)
        terms.append(marks)
    projected = projection.projected(lib, features, weight, working)
    logits = projected = apply(projection.with_terms, lib, projected, *terms)
    if softcap is not None:
        # The derivatives of the cap are products, too, which would pass NaN on.
        projected = zero_uncounted(lib, counted, zero_excluded(lib, where, projected))
        logits = apply(partial(projection.capped, softcap=softcap), lib, projected)
    return _Projection(features, weight, projected, logits, softcap)


def _values_of_block(lib: Library, settings: Settings, arrays: dict[str, Any], _: None) -> tuple[list[Any], list[Any]]:
    block = _block_of(lib, settings, arrays)
    kernel = _OBJECTIVES[settings.objective].values
    return list(run(kernel, lib, block.layout, block.logits, block.operands, rows="rows")), []


def _gradients_of_block(
    lib: Library, settings: Settings, arrays: dict[str, Any], sums: Any
) -> tuple[list[Any], list[Any]]:
    block = _block_of(lib, settings, arrays)
    kernel = _OBJECTIVES[settings.objective].gradients
    of_rows, *gradients = run(kernel, lib, block.layout, block.logits, block.operands, rows="rows")
    of_features: list[Any] = []
    totals: list[Any] = []
    for prefix, model, gradient in zip(settings.prefixes, block.projections, gradients, strict=True):
        if model.softcap is not None:
            gradient = apply(partial(projection.through_cap, softcap=model.softcap), lib, gradient, model.projected)
        wanted = tuple([f"{prefix}{name}" in settings.wanted_names for name in _OF_MODEL])
        before = None if sums is None else sums[len(totals) :]
        rows, own = projection.gradients_of(lib, gradient, model.features, model.weight, wanted, before)
        of_features += [zero_uncounted(lib, block.counted, values) for values in rows]
        totals += own
    return [of_rows, *of_features], totals


def _summary_of_block(lib: Library, settings: Settings, arrays: dict[str, Any], _: None) -> tuple[list[Any], list[Any]]:
    """Return the columns of `summary`; examples that do not count have 0, and -1 in place of the class."""
    block = _block_of(lib, settings, arrays)
    where = block.operands.where
    of_kernels = [
        run(kernel, lib, block.layout, block.logits, operands, rows="rows")[0]
        for kernel, operands in (
            (kernels.LOSSES, block.operands),
            (kernels.LOGSUMEXP, where),
            (kernels.ENTROPY, Comparison(where=where)),
        )
    ]
    classes = lib.xp.argmax(masked_logits(lib, where, block.logits), axis=1, keepdims=True)
    classes = classes if block.counted is None else lib.xp.where(block.counted, classes, -1)
    return [*(zero_uncounted(lib, block.counted, column) for column in of_kernels), classes], []
