"""The arguments of functions of projected features, as the arrays and settings of a sweep."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

from stable_softmax._arguments.arrays import at_least, index_of, layout_of, not_real_error, where_of
from stable_softmax._arguments.options import (
    NO_OPTIONS,
    Options,
    check_reduction,
    criterion_of,
    divisor_of,
    number_of_examples,
    with_own_arrays,
)
from stable_softmax._arguments.types import Reduction
from stable_softmax._arguments.values import as_float
from stable_softmax._core.comparison import Comparison
from stable_softmax._core.criterion import Criterion
from stable_softmax._core.layout import Layout
from stable_softmax._execution.sweep import Settings
from stable_softmax._libraries import is_array
from stable_softmax._libraries.standard import Library, native_dtype

_OF_MODEL = ("features", "weight", "bias")
_OF_REFERENCE = ("reference_features", "reference_weight", "reference_bias")


class Projected(NamedTuple):
    """The checked arguments of a function of projected features."""

    lib: Library
    #: Layout of the full logits, which are never materialized.
    layout: Layout
    #: Features (rows, D), weight, and bias if it is given, of each model, and the arrays of the operands, with one
    #: batch axis.
    arrays: tuple[Any, ...]
    settings: Settings
    reduction: Reduction
    #: Shapes and dtypes of the gradients.
    shapes: tuple[tuple[Any, ...], ...]
    dtypes: tuple[Any, ...]


class Sweep(NamedTuple):
    """The options of a function of projected features that say how to go about it, as the caller passes them."""

    #: One for each model.
    softcaps: dict[str, Any]
    block_size: Any
    with_respect_to: Any = _OF_MODEL


def projected_loss(
    features: Any, weight: Any, reference_answers: Any, bias: Any, options: Options, sweep: Sweep
) -> Projected:
    """Check all arguments of a loss of projected features."""
    given = {"features": features, "weight": weight, "reference_answers": reference_answers}
    lib, own, options = with_own_arrays(given if bias is None else given | {"bias": bias}, options)
    _check_order(lib, own)
    model = _model_of(lib, own, _OF_MODEL)
    shape, result = _logits_of(lib, model, _OF_MODEL)
    layout, criterion = criterion_of(lib, shape, result, reference_answers, own["reference_answers"], -1, options)
    return _projected(lib, layout, "crossentropy", model, criterion, options, sweep)


def projected_comparison(
    objective: str, given: dict[str, Any], where: Any, reduction: Reduction, dtype: Any, sweep: Sweep
) -> Projected:
    """Check all arguments of an entropy or a divergence; `given` has the arrays of the models, None for no bias."""
    check_reduction(reduction)
    given = {name: array for name, array in given.items() if array is not None or not name.endswith("bias")}
    options = NO_OPTIONS._replace(where=where, reduction=reduction, dtype=dtype)
    lib, own, options = with_own_arrays(given, options)
    model, reference = _model_of(lib, own, _OF_MODEL), {}
    shape, result = _logits_of(lib, model, _OF_MODEL)
    layout = layout_of(lib, shape, result, -1, options.dtype)
    if not layout.has_classes:
        raise ValueError("weight must have at least one class, but its shape is " + str(tuple(model["weight"].shape)))
    if "reference_features" in own:
        reference = _model_of(lib, own, _OF_REFERENCE)
        reference_shape, reference_dtype = _logits_of(lib, reference, _OF_REFERENCE)
        if reference_shape != shape:
            raise ValueError(
                "reference_features and reference_weight must give logits of the shape of the others, "
                f"{shape}, not {reference_shape}"
            )
        layout = at_least(lib, layout, "reference_features", reference_dtype)
    divisor = divisor_of(layout, reduction)
    rows = model["features"][..., :1] if divisor is None else None
    comparison = Comparison(
        where=None if where is None else where_of(lib, options.where, layout),
        divisor=divisor if rows is None else number_of_examples(lib, rows, layout),
    )
    return _projected(lib, layout, objective, model | reference, comparison, options, sweep)


def _check_order(lib: Library, own: dict[str, Any]) -> None:
    """Raise if the bias was passed as the labels, and the labels as the bias."""
    answers, bias = own["reference_answers"], own.get("bias")
    if bias is None or lib.is_of_kind(answers.dtype, "integral"):  # before lengths, which may be unknown, are compared
        return
    shapes = {name: tuple(array.shape) for name, array in own.items()}
    of_bias = shapes["weight"][:1]
    if shapes["reference_answers"] != of_bias:
        return
    batch = shapes["features"][:-1]
    if shapes["bias"] not in (batch, batch + of_bias) or not batch:
        return
    if shapes["bias"] != of_bias or lib.is_of_kind(bias.dtype, "integral"):
        raise ValueError(
            "reference_answers and bias are swapped: pass reference_answers third and bias fourth, or by their names; "
            f"reference_answers is {answers.dtype} {of_bias}, and bias is {bias.dtype} {shapes['bias']}"
        )


def _model_of(lib: Library, own: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the arrays of a model, floating, and check that their shapes fit each other."""
    model = {name: _floating(lib, name, own[name]) for name in names if name in own}
    _check_shapes(model, names)
    return model


def _logits_of(lib: Library, model: dict[str, Any], names: tuple[str, ...]) -> tuple[tuple[Any, ...], Any]:
    """Return shape and dtype of the full logits of a model."""
    features, weight, _ = names
    shape = (*model[features].shape[:-1], model[weight].shape[0])
    return shape, lib.xp.result_type(*(array.dtype for array in model.values()))


def _projected(
    lib: Library,
    layout: Layout,
    objective: str,
    models: dict[str, Any],
    operands: Criterion | Comparison,
    options: Options,
    sweep: Sweep,
) -> Projected:
    rows = math.prod(layout.shape[:-1])
    flat = {
        name: lib.xp.reshape(array, (rows, array.shape[-1])) if name.endswith("features") else array
        for name, array in models.items()
    }
    fields = operands._asdict()
    arrays = {name: _in_rows(lib, field, layout, rows) for name, field in fields.items() if is_array(field)}
    limits = lib.xp.finfo(layout.working)
    settings = Settings(
        objective=objective,
        names=(*flat, *arrays),
        numbers=tuple((name, field) for name, field in fields.items() if name not in arrays),
        softcaps=tuple(_softcap_of(name, softcap, limits) for name, softcap in sweep.softcaps.items()),
        working=layout.working,
        block_size=_block_size_of(sweep.block_size),
        wanted=_wanted_of(sweep.with_respect_to, tuple(flat), (*_OF_MODEL, *_OF_REFERENCE)[: 3 * len(sweep.softcaps)]),
    )
    shapes = tuple(tuple(array.shape) for array in models.values())
    dtypes = tuple(array.dtype if options.dtype is None else layout.dtype for array in models.values())
    return Projected(lib, layout, (*flat.values(), *arrays.values()), settings, options.reduction, shapes, dtypes)


def _floating(lib: Library, name: str, array: Any) -> Any:
    if lib.is_of_kind(array.dtype, "integral"):
        return lib.convert(array, lib.default_dtype("real floating"))
    if lib.is_of_kind(array.dtype, "real floating"):
        return lib.convert(array, native_dtype(array.dtype))
    raise not_real_error(name, array.dtype)


def _check_shapes(given: dict[str, Any], names: tuple[str, ...]) -> None:
    of_features, of_weight, of_bias = names
    features, weight = (tuple(given[name].shape) for name in (of_features, of_weight))
    if len(features) == 0:
        raise ValueError(f"{of_features} must have at least one dimension, but its shape is ()")
    for name, shape in ((of_features, features), (of_weight, weight)):
        if None in shape:
            raise ValueError(f"{name} must have a known shape, not {shape}")
    if len(weight) != 2 or weight[1] != features[-1]:
        is_swapped = len(weight) == 2 and weight[0] == features[-1]
        remedy = f"; it is transposed: pass {of_weight}.T" if is_swapped else ""
        raise ValueError(
            f"{of_weight} must have shape (classes, {features[-1]}) for {of_features} {features}, not {weight}{remedy}"
        )
    if of_bias in given and tuple(given[of_bias].shape) != weight[:1]:
        shape = tuple(given[of_bias].shape)
        raise ValueError(f"{of_bias} must have shape {weight[:1]}, one for each class, not {shape}")


def _softcap_of(name: str, softcap: Any, limits: Any) -> float | None:
    if softcap is None:
        return None
    if isinstance(softcap, bool) or not isinstance(softcap, Real):
        raise TypeError(f"{name} must be a real number or None, not {softcap!r}")
    cap = as_float(softcap)
    # Compilers flush smaller numbers to 0.
    smallest, largest = float(limits.smallest_normal), float(limits.max)
    if not smallest <= cap <= largest:
        raise ValueError(f"{name} must lie in [{smallest:.4g}, {largest:.4g}], but is {softcap}")
    return cap


def _wanted_of(with_respect_to: Any, given: tuple[str, ...], accepted: tuple[str, ...]) -> tuple[bool, ...]:
    """Return for each given array whether the gradient with respect to it is wanted."""
    names = (with_respect_to,) if isinstance(with_respect_to, str) else with_respect_to
    if not isinstance(names, Sequence) or False in [isinstance(name, str) for name in names]:
        raise TypeError(f"with_respect_to must be a name or a sequence of names, not {with_respect_to!r}")
    if not set(accepted).issuperset(names) or len(set(names)) < len(names):
        *first, last = map(repr, accepted)
        raise ValueError(
            f"with_respect_to must name some of {', '.join(first)} and {last}, each once, not {with_respect_to!r}"
        )
    return tuple([name in names for name in given])


def _block_size_of(block_size: Any) -> int | None:
    if block_size is None:
        return None
    try:
        size = index_of(block_size)
    except TypeError:
        raise TypeError(f"block_size must be an integer or None, not {block_size!r}") from None
    if size < 1:
        raise ValueError(f"block_size must be at least 1, but is {size}")
    return size


def _in_rows(lib: Library, array: Any, layout: Layout, rows: int) -> Any:
    """Return an array that broadcasts to the logits, with all batch axes merged into one."""
    batch, own = layout.shape[:-1], tuple(array.shape[:-1])
    if all(length == 1 for length in own):
        return lib.xp.reshape(array, (1, array.shape[-1]))
    if own != tuple(batch):
        array = lib.xp.broadcast_to(array, (*batch, array.shape[-1]))
    return lib.xp.reshape(array, (rows, array.shape[-1]))
