"""Functions with analytic derivatives, which JAX and PyTorch use in place of their own."""

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any, TypeVar

from stable_softmax._libraries.standard import Library

Rule = TypeVar("Rule", bound=Callable[..., Any])


class Differentiable:
    """A function of arrays with its derivatives with respect to the first `variables` of them.

    All functions get the library, the arrays, and the same hashable options as keywords. The rules are declared below
    the function, as with `jax.custom_jvp`:

        @differentiable
        def square(lib, x): ...

        @square.has_jvp
        def _(lib, tangent, x): ...
    """

    #: (lib, *tangents, *arrays) -> the value and its derivative in the direction of the tangents, linear in them. A
    #: function of several variables gets None for tangents that are known to be 0.
    jvp: Callable[..., tuple[Any, Any]]
    #: (lib, cotangent or tuple of cotangents, *arrays) -> the gradient. A function of several variables returns a tuple
    #: of gradients; its keyword `wanted` says which are needed, and the others may be None.
    vjp: Callable[..., Any]
    #: (lib, *arrays) -> value and gradient at once, if `vjp` is the gradient times the cotangent; for several variables
    #: as in `vjp`. The gradient has the dtype of the computation, and is rounded after the product.
    value_and_gradient: Callable[..., tuple[Any, Any]] | None = None

    def __init__(self, value: Callable[..., Any], variables: int = 1) -> None:
        self.value = value
        #: Number of arrays with respect to which it has derivatives.
        self.variables = variables

    def __call__(self, lib: Library, *arrays: Any, into: Any = None, **options: Any) -> Any:
        """Return the function's value, in a form that the array library can differentiate.

        With `into`, no derivative is needed, and the value may be written into that memory.
        """
        if into is not None:
            return self.value(lib, *arrays, into=into, **options)
        if not lib.differentiates:
            return self.value(lib, *arrays, **options)
        return lib.evaluate(self, *arrays, **options)

    def has_jvp(self, rule: Rule) -> Rule:
        """Declare the rule of forward mode."""
        self.jvp = rule
        return rule

    def has_vjp(self, rule: Rule) -> Rule:
        """Declare the rule of reverse mode."""
        self.vjp = rule
        return rule

    def has_value_and_gradient(self, function: Rule) -> Rule:
        """Declare the function that computes value and gradient at once."""
        self.value_and_gradient = function
        return function

    def gradients(self, lib: Library, cotangent: Any, *arrays: Any, wanted: tuple[bool, ...]) -> tuple[Any, ...]:
        """Return a gradient for each variable; those that are not wanted may be None."""
        if self.variables == 1:
            return (self.vjp(lib, cotangent, *arrays),)
        return tuple(self.vjp(lib, cotangent, *arrays, wanted=wanted))

    def value_and_gradients(self, lib: Library, *arrays: Any, wanted: tuple[bool, ...]) -> tuple[Any, tuple[Any, ...]]:
        """Return the value and a gradient for each variable; those that are not wanted may be None."""
        both: Any = self.value_and_gradient
        if self.variables > 1:
            return both(lib, *arrays, wanted=wanted)
        value, gradient = both(lib, *arrays)
        return value, (gradient,)

    def of_variables(self, variables: int) -> "Differentiable":
        """Return the same function with derivatives with respect to this number of arrays."""
        own = copy(self)
        own.variables = variables
        return own

    def with_options(self, options: dict[str, Any]) -> "Differentiable":
        """Return the function of the arrays alone, with the options fixed."""
        if not options:
            return self
        own = copy(self)
        own.value = partial(self.value, **options)
        own.jvp, own.vjp = partial(self.jvp, **options), partial(self.vjp, **options)
        if self.value_and_gradient:
            own.value_and_gradient = partial(self.value_and_gradient, **options)
        return own


differentiable = Differentiable


def differentiable_in(variables: int) -> Callable[[Callable[..., Any]], Differentiable]:
    """Return a decorator for a function with derivatives with respect to its first `variables` arrays."""
    return partial(Differentiable, variables=variables)
