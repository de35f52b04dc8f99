"""The loss of projected features, in blocks of rows: the full logits are never in memory at once.

Blocks hold some rows with all their classes. Three matrix products then give loss and gradient; with blocks of classes,
the logits would have to be computed twice. A few rows take no more memory than the weight: with fewer rows than
features, the logits are smaller than the weight.
"""

from functools import partial
from typing import Any, NamedTuple

from stable_softmax._core.criterion import DIFFERENTIABLE, Criterion
from stable_softmax._core.layout import Layout
from stable_softmax._execution.run import apply, run
from stable_softmax._execution.run import total as total_of
from stable_softmax._libraries.differentiable import differentiable
from stable_softmax._libraries.standard import Library
from stable_softmax._maths import kernels, projection
from stable_softmax._maths.sums import sum_of_products
from stable_softmax._maths.targets import counted_of, zero_excluded, zero_uncounted

#: Memory of a block's logits, to be multiplied by a factor for the device.
_BLOCK_BYTES = 1 << 25
#: Least number of rows, or the number of features if that is smaller: no larger logits than the weight.
_ROWS_WORTH_A_PRODUCT = 256
#: At least this many blocks, unless each would have fewer than `_LEAST_ROWS` rows.
_LEAST_BLOCKS = 4
_LEAST_ROWS = 64


class Settings(NamedTuple):
    """All properties of a loss of projected features except its arrays; hashable."""

    #: Names of the arrays after features and weight: "bias", and fields of the criterion.
    names: tuple[str, ...]
    #: The other fields of the criterion.
    numbers: tuple[tuple[str, Any], ...]
    softcap: float | None
    #: The dtype of the computation.
    working: Any
    #: Number of rows in a block; None to choose it by the number of classes.
    block_size: int | None
    #: Whether each gradient is wanted: for features, weight, and bias if it is given. The others cost nothing.
    wanted: tuple[bool, ...]


def losses(lib: Library, *arrays: Any, settings: Settings) -> Any:
    """Return the loss of each row, divided by the divisor, as a column."""
    return lib.compiled(_losses, *arrays, settings=settings)


def losses_and_gradients(lib: Library, *arrays: Any, settings: Settings) -> tuple[Any, tuple[Any, ...]]:
    """Return the losses, and the gradients of their sum with respect to features, weight, and bias if it is given.

    Gradients have the dtype of the computation. Those that are not wanted are None.
    """
    return lib.compiled(_losses_and_gradients, *arrays, settings=settings)


def total(lib: Library, *arrays: Any, settings: Settings) -> Any:
    """Return the sum of the losses.

    Derivatives with respect to features, weight and bias come from the same sweep as the sum. For derivatives with
    respect to arrays of the options, each block is computed again.
    """
    options = dict(zip(settings.names, arrays[2:], strict=True))
    floating = [options[name] for name in DIFFERENTIABLE if name in options]
    function = _total.value if lib.records(*floating) else _TOTALS[len(settings.wanted)]
    return function(lib, *arrays, settings=settings)


@differentiable
def _total(lib: Library, *arrays: Any, settings: Settings) -> Any:
    return total_of(lib, losses(lib, *arrays, settings=settings))


@_total.has_value_and_gradient
def _total_and_gradients(
    lib: Library, *arrays: Any, settings: Settings, wanted: tuple[bool, ...]
) -> tuple[Any, tuple[Any, ...]]:
    values, gradients = losses_and_gradients(lib, *arrays, settings=settings._replace(wanted=wanted))
    return total_of(lib, values), gradients


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


#: The total by its number of variables: features, weight and, with three, bias.
_TOTALS = {variables: _total.of_variables(variables) for variables in (2, 3)}


def _losses(lib: Library, *arrays: Any, settings: Settings) -> Any:
    return _swept(lib, _losses_of_block, arrays, settings)[0][0]


def _losses_and_gradients(lib: Library, *arrays: Any, settings: Settings) -> tuple[Any, tuple[Any, ...]]:
    function = _gradients_of_block if any(settings.wanted) else _losses_of_block
    (values, *of_features), sums = _swept(lib, function, arrays, settings)
    found = iter((*of_features, *sums))
    return values, tuple([next(found) if is_wanted else None for is_wanted in settings.wanted])


def _swept(lib: Library, function: Any, arrays: tuple[Any, ...], settings: Settings) -> Any:
    """Return the results of a function over all blocks: the whole computation of the loss."""
    given = dict(zip(("features", "weight", *settings.names), arrays, strict=True))
    with lib.in_silence():
        # Converted once, not in each block: the blocks' derivatives then add up in this dtype, and are rounded once.
        wide = {"bias"} if lib.multiplies_narrow(given["weight"]) else {"weight", "bias"}
        given |= {name: lib.convert(array, settings.working) for name, array in given.items() if name in wide}
        if "where" in given:
            given["weight"], marks = projection.finite_and_nan_column(lib, given["weight"], settings.working)
            given["bias"] = given.get("bias", 0) + marks[:, 0]  # NaN for a class whose weights are not finite
        in_rows = {name: array for name, array in given.items() if _has_rows(name, array)}
        whole = {name: array for name, array in given.items() if name not in in_rows}

        def of_block(sums: Any, rows: tuple[Any, ...], others: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
            arrays = dict(zip(in_rows, rows, strict=True)) | dict(zip(whole, others, strict=True))
            return function(lib, settings, arrays, sums)

        size = settings.block_size or _rows_of_block(lib, given["features"], given["weight"], settings.working)
        return lib.sweep(of_block, tuple(in_rows.values()), tuple(whole.values()), size)


def _has_rows(name: str, array: Any) -> bool:
    """Whether an array has an entry for each example."""
    return name in ("features", "class_ids", "probabilities", "example_weights") or (
        name == "where" and array.shape[0] != 1
    )


def _rows_of_block(lib: Library, features: Any, weight: Any, working: Any) -> int:
    (rows, number), classes = features.shape, weight.shape[0]
    if not (lib.is_known(rows) and lib.is_known(classes) and lib.is_known(number)):
        return _LEAST_ROWS
    fitting = lib.sweep_factor(weight) * _BLOCK_BYTES // (classes * lib.bits_of(working) // 8)
    enough = max(fitting, min(number, _ROWS_WORTH_A_PRODUCT))
    return max(_LEAST_ROWS, min(enough, -(-rows // _LEAST_BLOCKS)))


class _Block(NamedTuple):
    features: Any
    weight: Any
    criterion: Criterion
    #: Mask of the examples that count; None if all do.
    counted: Any
    #: The logits before the cap.
    projected: Any
    logits: Any
    layout: Layout


def _block_of(lib: Library, settings: Settings, arrays: dict[str, Any]) -> _Block:
    fields = arrays | dict(settings.numbers)
    features, weight, bias = (fields.pop(name, None) for name in ("features", "weight", "bias"))
    criterion = Criterion(**fields)
    counted = counted_of(lib, criterion, axis=1)
    features = zero_uncounted(lib, counted, features)  # products with 0 would pass their NaN on
    terms = [] if bias is None else [bias[None, :]]
    if criterion.where is not None:
        features, marks = projection.finite_and_nan_column(lib, features, settings.working)
        terms.append(marks)
    projected = projection.projected(lib, features, weight, settings.working)
    logits = projected = apply(projection.with_terms, lib, projected, *terms)
    if settings.softcap is not None:
        # The derivatives of the cap are products, too, which would pass NaN on.
        projected = zero_uncounted(lib, counted, zero_excluded(lib, criterion.where, projected))
        logits = apply(partial(projection.capped, softcap=settings.softcap), lib, projected)
    layout = Layout(tuple(logits.shape), (1,), settings.working, settings.working)
    return _Block(features, weight, criterion, counted, projected, logits, layout)


def _losses_of_block(lib: Library, settings: Settings, arrays: dict[str, Any], _: None) -> tuple[list[Any], list[Any]]:
    block = _block_of(lib, settings, arrays)
    return list(run(kernels.LOSSES, lib, block.layout, block.logits, block.criterion, rows="rows")), []


def _gradients_of_block(
    lib: Library, settings: Settings, arrays: dict[str, Any], sums: Any
) -> tuple[list[Any], list[Any]]:
    block = _block_of(lib, settings, arrays)
    kernel = kernels.LOSSES_AND_GRADIENT.on_whole_rows
    values, gradient = run(kernel, lib, block.layout, block.logits, block.criterion, rows="rows")
    if settings.softcap is not None:
        through_cap = partial(projection.through_cap, softcap=settings.softcap)
        gradient = apply(through_cap, lib, gradient, block.projected)
    of_features, sums = projection.gradients_of(lib, gradient, block.features, block.weight, settings.wanted, sums)
    return [values, *(zero_uncounted(lib, block.counted, rows) for rows in of_features)], sums
