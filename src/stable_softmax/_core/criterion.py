"""Labels with all options of a loss, checked and ready for the computation."""

from typing import Any, NamedTuple

#: The fields that users may differentiate with respect to.
DIFFERENTIABLE = ("probabilities", "class_weights", "example_weights", "label_smoothing", "z_loss")


class Criterion(NamedTuple):
    """Class ids or target probabilities, and the options; arrays that are not given are None.

    All arrays have as many dimensions as the logits, and broadcast against them.
    """

    class_ids: Any = None
    #: Target probabilities, instead of class ids.
    probabilities: Any = None
    where: Any = None
    class_weights: Any = None
    #: What each example counts; where it is 0, nothing of the example does.
    example_weights: Any = None
    #: A float, or an array with one entry.
    label_smoothing: Any = 0.0
    #: A float, or an array with one entry.
    z_loss: Any = 0.0
    #: Divisor of losses and gradients.
    divisor: Any = 1
    #: The class id to ignore, in the default integer dtype; None if no example is ignored.
    ignored_id: int | None = None
    #: Whether the class ids of all examples that count are known to be in range.
    are_valid: bool = False
    #: Whether these are known to be class ids without any option.
    is_label: bool = False
