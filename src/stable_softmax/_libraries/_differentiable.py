"""A function with its analytic derivatives, which become the native ones of JAX and of PyTorch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

from stable_softmax._libraries import is_jax, is_torch


@dataclass(frozen=True, eq=False)
class Differentiable:
    """A function with its derivatives with respect to the first of its arrays; the others have none.

    Called like the function, with all options as keywords. All functions take the same options, which are hashable.
    """

    #: (xp, *arrays) -> result or tuple of results
    value: Callable[..., Any]
    #: (xp, *tangents, *arrays) -> as `value`, and its derivative in the direction of the tangents. Linear in them. A
    #: function of several variables gets None for tangents that are known to be 0
    jvp: Callable[..., tuple[Any, Any]]
    #: (xp, cotangent or tuple of them, *arrays) -> the gradient that they give. A function of several variables returns
    #: a tuple of gradients; it is told, as `wanted`, which are asked for, and may return None for the others
    vjp: Callable[..., Any]
    #: (xp, *arrays) -> value and gradient at once, of a function whose `vjp` is the gradient times the cotangent; for
    #: several variables as `vjp`. The gradient has the dtype that the work is done in, to be rounded after that product
    value_and_gradient: Callable[..., tuple[Any, Any]] | None = None
    #: How many arrays it has derivatives with respect to.
    variables: int = 1

    def __call__(self, xp: ModuleType, *arrays: Any, into: Any = None, **options: Any) -> Any:
        """Return the function's value, in the form that the array library knows how to differentiate.

        It may be in given memory where no derivative is asked for.
        """
        if into is not None:
            return self.value(xp, *arrays, into=into, **options)
        if is_jax(xp):
            from stable_softmax._libraries import _jax

            return _jax.evaluate(self, tuple(options.items()), *arrays)
        if is_torch(xp):
            from stable_softmax._libraries import _torch

            return _torch.evaluate(self._with(options), *arrays)
        return self.value(xp, *arrays, **options)

    def gradients(self, xp: ModuleType, cotangent: Any, *arrays: Any, wanted: tuple[bool, ...]) -> tuple[Any, ...]:
        """Return a gradient for each variable; for those that are not wanted, it may be None."""
        if self.variables == 1:
            return (self.vjp(xp, cotangent, *arrays),)
        return tuple(self.vjp(xp, cotangent, *arrays, wanted=wanted))

    def value_and_gradients(
        self, xp: ModuleType, *arrays: Any, wanted: tuple[bool, ...]
    ) -> tuple[Any, tuple[Any, ...]]:
        """Return the value and a gradient for each variable; for those that are not wanted, it may be None."""
        both: Any = self.value_and_gradient
        if self.variables > 1:
            return both(xp, *arrays, wanted=wanted)
        value, gradient = both(xp, *arrays)
        return value, (gradient,)

    def _with(self, options: dict[str, Any]) -> "Differentiable":
        """Return the function of the arrays alone."""
        functions: list[Any] = [self.value, self.jvp, self.vjp, self.value_and_gradient]
        value, jvp, vjp, both = [function and partial(function, **options) for function in functions]
        return Differentiable(value, jvp, vjp, both, self.variables)
