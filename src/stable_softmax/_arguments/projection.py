"""The arguments of the loss of projected features, as the arrays and settings of a sweep."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

from stable_softmax._arguments.arrays import index_of
from stable_softmax._arguments.options import Options, criterion_of, with_own_arrays
from stable_softmax._arguments.values import as_float
from stable_softmax._core.layout import Layout
from stable_softmax._execution.sweep import Settings
from stable_softmax._libraries import is_array
from stable_softmax._libraries.standard import Library, native_dtype

_VARIABLES = ("features", "weight", "bias")


class LinearLoss(NamedTuple):
    """The checked arguments of a loss of projected features."""

    lib: Library
    #: Layout of the full logits, which are never materialized.
    layout: Layout
    #: Features (rows, D), weight, bias if it is given, and the criterion's arrays, with one batch axis.
    arrays: tuple[Any, ...]
    settings: Settings
    reduction: str
    #: The dtypes of the gradients.
    dtypes: tuple[Any, ...]


def linear_loss_of(
    features: Any,
    weight: Any,
    reference_answers: Any,
    bias: Any,
    options: Options,
    *,
    softcap: Any,
    block_size: Any,
    with_respect_to: Any = _VARIABLES,
) -> LinearLoss:
    """Check all arguments of a loss of projected features."""
    given = {"features": features, "weight": weight, "reference_answers": reference_answers}
    lib, own, options = with_own_arrays(given if bias is None else given | {"bias": bias}, options)
    given = {name: _floating(lib, name, own[name]) for name in _VARIABLES if name in own}
    _check_shapes(given)
    result = lib.xp.result_type(*(array.dtype for array in given.values()))
    shape = (*given["features"].shape[:-1], given["weight"].shape[0])
    layout, criterion = criterion_of(lib, shape, result, reference_answers, own["reference_answers"], -1, options)
    rows = math.prod(layout.shape[:-1])
    given["features"] = lib.xp.reshape(given["features"], (rows, given["features"].shape[-1]))
    fields = criterion._asdict()
    arrays = {name: _in_rows(lib, field, layout, rows) for name, field in fields.items() if is_array(field)}
    settings = Settings(
        names=tuple(name for name in (*given, *arrays) if name not in ("features", "weight")),
        numbers=tuple((name, field) for name, field in fields.items() if name not in arrays),
        softcap=_softcap_of(softcap, lib.xp.finfo(layout.working)),
        working=layout.working,
        block_size=_block_size_of(block_size),
        wanted=_wanted_of(with_respect_to, tuple(given)),
    )
    dtypes = tuple(array.dtype if options.dtype is None else layout.dtype for array in given.values())
    return LinearLoss(lib, layout, (*given.values(), *arrays.values()), settings, options.reduction, dtypes)


def _floating(lib: Library, name: str, array: Any) -> Any:
    if lib.is_of_kind(array.dtype, "integral"):
        return lib.convert(array, lib.default_dtype("real floating"))
    if lib.is_of_kind(array.dtype, "real floating"):
        return lib.convert(array, native_dtype(array.dtype))
    raise TypeError(f"{name} must have a real floating-point or integer dtype, not {array.dtype}")


def _check_shapes(given: dict[str, Any]) -> None:
    features, weight = (tuple(given[name].shape) for name in ("features", "weight"))
    if len(features) == 0:
        raise ValueError("features must have at least one dimension, but its shape is ()")
    for name, shape in (("features", features), ("weight", weight)):
        if None in shape:
            raise ValueError(f"{name} must have a known shape, not {shape}")
    if len(weight) != 2 or weight[1] != features[-1]:
        swapped = "; it is transposed: pass weight.T" if len(weight) == 2 and weight[0] == features[-1] else ""
        raise ValueError(
            f"weight must have shape (classes, {features[-1]}) for features {features}, not {weight}{swapped}"
        )
    if "bias" in given and tuple(given["bias"].shape) != weight[:1]:
        raise ValueError(f"bias must have shape {weight[:1]}, one for each class, not {tuple(given['bias'].shape)}")


def _softcap_of(softcap: Any, limits: Any) -> float | None:
    if softcap is None:
        return None
    if isinstance(softcap, bool) or not isinstance(softcap, Real):
        raise TypeError(f"softcap must be a real number or None, not {softcap!r}")
    cap = as_float(softcap)
    # Compilers flush smaller numbers to 0.
    smallest, largest = float(limits.smallest_normal), float(limits.max)
    if not smallest <= cap <= largest:
        raise ValueError(f"softcap must lie in [{smallest:.4g}, {largest:.4g}], but is {softcap}")
    return cap


def _wanted_of(with_respect_to: Any, given: tuple[str, ...]) -> tuple[bool, ...]:
    """Return for each given array whether the gradient with respect to it is wanted."""
    names = (with_respect_to,) if isinstance(with_respect_to, str) else with_respect_to
    if not isinstance(names, Sequence) or False in [isinstance(name, str) for name in names]:
        raise TypeError(f"with_respect_to must be a name or a sequence of names, not {with_respect_to!r}")
    if not set(_VARIABLES).issuperset(names) or len(set(names)) < len(names):
        raise ValueError(
            f"with_respect_to must name some of 'features', 'weight' and 'bias', each once, not {with_respect_to!r}"
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
