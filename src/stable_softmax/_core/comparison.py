"""What a function of rows gets beside the logits: reference logits to compare them with, and options."""

from typing import Any, NamedTuple


class Comparison(NamedTuple):
    """The operands of entropies and divergences; arrays that are not given are None.

    The arrays have as many dimensions as the logits, and broadcast against them.
    """

    reference_logits: Any = None
    where: Any = None
    #: Divisor of values and gradients.
    divisor: Any = 1
    #: The share of the reference in the mixture that a Jensen-Shannon divergence compares with; None for others.
    reference_share: float | None = None
