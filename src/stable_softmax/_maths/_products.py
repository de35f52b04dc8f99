"""Products that may leave the dtype."""

from types import ModuleType
from typing import Any

from stable_softmax._libraries import warns
from stable_softmax._libraries._operations import computed_alone


def product(xp: ModuleType, first: Any, second: Any) -> Any:
    """Return the product, without NumPy's warning where it overflows, and as it stands: XLA multiplies constants."""
    if not warns(xp):
        return computed_alone(xp, first * second)
    is_number = isinstance(second, float)
    size = max(1.0, second) if is_number else xp.clip(xp.abs(second), min=1)
    overflows = xp.abs(first) > xp.finfo(first.dtype).max / size
    signs = xp.sign(first) if is_number else xp.sign(first) * xp.sign(second)
    fitting = xp.where(overflows, 0, first) * (second if is_number else xp.where(overflows, 0, second))
    return xp.where(overflows, xp.inf, fitting) * xp.where(overflows, signs, 1)
