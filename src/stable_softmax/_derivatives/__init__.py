"""Makes an analytic derivative the native one of the array library: of JAX, and of PyTorch."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from array_api_compat import is_jax_array, is_torch_array


class Differentiable(NamedTuple):
    """A function of logits, and of arrays that it has no derivative with respect to, with its derivatives.

    Keyword arguments are hashable, and the same for all three functions.
    """

    #: (xp, logits, *others) -> result or tuple of results
    value: Callable[..., Any]
    #: (xp, vector, logits, *others) -> as `value`, and its derivative in the direction of the vector. Linear in it
    jvp: Callable[..., tuple[Any, Any]]
    #: (xp, cotangent or tuple of them, logits, *others) -> the gradient that they give with respect to the logits
    vjp: Callable[..., Any]


def call(function: Differentiable, xp: ModuleType, logits: Any, *others: Any, **options: Any) -> Any:
    """Return the function's value, in the form that the array library knows how to differentiate."""
    if is_jax_array(logits):
        from stable_softmax._derivatives import _jax

        return _jax.call(function, tuple(options.items()), logits, *others)
    if is_torch_array(logits):
        from stable_softmax._derivatives import _torch

        return _torch.call(function, options, logits, *others)
    return function.value(xp, logits, *others, **options)
