"""Reference answers with their options, checked, as the work takes them."""

from typing import Any, NamedTuple


class Criterion(NamedTuple):
    """What logits are compared with, and how: arrays, None for those that are absent, and numbers.

    All arrays have as many dimensions as the logits, and broadcast against them.
    """

    class_ids: Any = None
    #: Target probabilities, in the place of class ids.
    probabilities: Any = None
    where: Any = None
    class_weights: Any = None
    #: A float, or an array of one.
    label_smoothing: Any = 0.0
    #: A float, or an array of one.
    z_loss: Any = 0.0
    #: What losses and gradients are divided by.
    divisor: Any = 1
    #: As it is among class ids of the default integer dtype; None if no example is ignored.
    ignored_id: int | None = None
    #: Whether the class ids of all examples that count are known to be in range.
    are_valid: bool = False
    #: Whether this is known to be class ids and nothing else.
    is_label: bool = False
