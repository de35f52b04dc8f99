"""The arguments of entropies and divergences, checked and ready for the computation."""

from numbers import Real
from typing import Any, NamedTuple

from stable_softmax._arguments.arrays import at_least, layout_of, where_of
from stable_softmax._arguments.options import check_reduction, divisor_of, number_of_examples
from stable_softmax._arguments.types import Axis, Reduction
from stable_softmax._core.comparison import Comparison
from stable_softmax._core.layout import Layout, Result
from stable_softmax._libraries.common import common_library
from stable_softmax._libraries.standard import Library


class Compared(NamedTuple):
    """The checked arguments of an entropy or a divergence."""

    lib: Library
    layout: Layout
    logits: Any
    comparison: Comparison
    #: Shape of the values: "examples", or "total" if they are summed.
    rows: Result


def compared(
    given: dict[str, Any], axis: Axis, *, where: Any, reduction: Reduction, dtype: Any, reference_weight: Any = None
) -> Compared:
    """Check all arguments; `given` has the logits, and those of a divergence the reference logits."""
    check_reduction(reduction)
    lib, own = common_library(given if where is None else given | {"where": where})
    logits, reference_logits, where = own["logits"], own.get("reference_logits"), own.get("where")
    dtype = lib.autocast_dtype(logits) if dtype is None else dtype
    layout = layout_of(lib, tuple(logits.shape), logits.dtype, axis, dtype)
    if not layout.has_classes:
        raise ValueError(f"logits must have at least one class along axis {axis}, but its shape is {layout.shape}")
    if reference_logits is not None:
        layout = at_least(lib, layout, "reference_logits", reference_logits.dtype)
        if tuple(reference_logits.shape) != layout.shape:
            raise ValueError(
                f"reference_logits must have logits' shape {layout.shape}, not {tuple(reference_logits.shape)}"
            )
    divisor = divisor_of(layout, reduction)
    comparison = Comparison(
        reference_logits,
        where=None if where is None else where_of(lib, where, layout),
        divisor=number_of_examples(lib, logits, layout) if divisor is None else divisor,
        reference_share=None if reference_weight is None else _checked_weight(reference_weight),
    )
    return Compared(lib, layout, logits, comparison, "examples" if reduction == "none" else "total")


def _checked_weight(weight: Any) -> float:
    if isinstance(weight, bool) or not isinstance(weight, Real):
        raise TypeError(f"reference_weight must be a real number, not {weight!r}")
    number: Any = weight  # which may be too large for a float
    if not (0 < number < 1 and 0 < float(number) < 1):
        raise ValueError(f"reference_weight must lie between 0 and 1, but is {weight!r}")
    return float(number)
