"""Makes an analytic derivative the native one of the array library: of JAX, and of PyTorch."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from array_api_compat import is_jax_namespace, is_torch_namespace


@dataclass(frozen=True)
class Differentiable:
    """A function of logits, and of arrays that it has no derivative with respect to, with its derivatives.

    All three take the same keyword arguments, which are hashable.
    """

    #: (xp, logits, *others) -> result or tuple of results
    value: Callable[..., Any]
    #: (xp, vector, logits, *others) -> as `value`, and its derivative in the direction of the vector. Linear in it
    jvp: Callable[..., tuple[Any, Any]]
    #: (xp, cotangent or tuple of them, logits, *others) -> the gradient that they give with respect to the logits
    vjp: Callable[..., Any]
    #: (xp, logits, *others) -> value and gradient at once, where `vjp` is the cotangent times the gradient
    value_and_gradient: Callable[..., tuple[Any, Any]] | None = None


@dataclass(frozen=True)
class Call:
    """A function and its keyword arguments, which to JAX and PyTorch are one constant."""

    function: Differentiable
    options: tuple[tuple[str, Any], ...]

    def value(self, *arguments: Any) -> Any:
        """Return the value."""
        return self.function.value(*arguments, **dict(self.options))

    def jvp(self, *arguments: Any) -> tuple[Any, Any]:
        """Return the value and its derivative in a direction."""
        return self.function.jvp(*arguments, **dict(self.options))

    def vjp(self, *arguments: Any) -> Any:
        """Return the gradient that cotangents give."""
        return self.function.vjp(*arguments, **dict(self.options))

    def value_and_gradient(self, *arguments: Any) -> tuple[Any, Any]:
        """Return value and gradient, of a function that has both at once."""
        assert self.function.value_and_gradient is not None
        return self.function.value_and_gradient(*arguments, **dict(self.options))


def call(function: Differentiable, xp: ModuleType, logits: Any, *others: Any, **options: Any) -> Any:
    """Return the function's value, in the form that the array library knows how to differentiate."""
    if is_jax_namespace(xp):
        from stable_softmax._derivatives import _jax

        return _jax.evaluate(Call(function, tuple(options.items())), logits, *others)
    if is_torch_namespace(xp):
        from stable_softmax._derivatives import _torch

        return _torch.evaluate(Call(function, tuple(options.items())), logits, *others)
    return function.value(xp, logits, *others, **options)
