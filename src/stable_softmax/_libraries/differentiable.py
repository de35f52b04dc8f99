"""A function with its analytic derivatives, which become the native ones of JAX and of PyTorch."""

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any, TypeVar

from stable_softmax._libraries.standard import Library

Rule = TypeVar("Rule", bound=Callable[..., Any])


class Differentiable:
    """A function of arrays with its derivatives with respect to the first of them; the others have none.

    All functions get the library, the arrays, and the same options as keywords, which are hashable. The rules are
    declared below the function, as those of `jax.custom_jvp` are:

        @differentiable
        def square(lib, x): ...

        @square.has_jvp
        def _(lib, tangent, x): ...
    """

    #: (lib, *tangents, *arrays) -> as `value`, and its derivative in the direction of the tangents. Linear in them. A
    #: function of several variables gets None for tangents that are known to be 0
    jvp: Callable[..., tuple[Any, Any]]
    #: (lib, cotangent or tuple of them, *arrays) -> the gradient that they give. A function of several variables
    #: returns a tuple of gradients; it is told, as `wanted`, which are asked for, and may return None for the others
    vjp: Callable[..., Any]
    #: (lib, *arrays) -> value and gradient at once, of a function whose `vjp` is the gradient times the cotangent; for
    #: several variables as `vjp`. The gradient has the dtype that the work is done in, to be rounded after that product
    value_and_gradient: Callable[..., tuple[Any, Any]] | None = None

    #: How many arrays it has derivatives with respect to.
    variables = 1

    def __init__(self, value: Callable[..., Any]) -> None:
        self.value = value

    def __call__(self, lib: Library, *arrays: Any, into: Any = None, **options: Any) -> Any:
        """Return the function's value, in the form that the array library knows how to differentiate.

        It may be in given memory where no derivative is asked for.
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
        """Declare what computes value and gradient at once."""
        self.value_and_gradient = function
        return function

    def gradients(self, lib: Library, cotangent: Any, *arrays: Any, wanted: tuple[bool, ...]) -> tuple[Any, ...]:
        """Return a gradient for each variable; for those that are not wanted, it may be None."""
        if self.variables == 1:
            return (self.vjp(lib, cotangent, *arrays),)
        return tuple(self.vjp(lib, cotangent, *arrays, wanted=wanted))

    def value_and_gradients(self, lib: Library, *arrays: Any, wanted: tuple[bool, ...]) -> tuple[Any, tuple[Any, ...]]:
        """Return the value and a gradient for each variable; for those that are not wanted, it may be None."""
        both: Any = self.value_and_gradient
        if self.variables > 1:
            return both(lib, *arrays, wanted=wanted)
        value, gradient = both(lib, *arrays)
        return value, (gradient,)

    def of_variables(self, variables: int) -> "Differentiable":
        """Return the same function, with derivatives with respect to so many arrays."""
        own = copy(self)
        own.variables = variables
        return own

    def with_options(self, options: dict[str, Any]) -> "Differentiable":
        """Return the function of the arrays alone."""
        if not options:
            return self
        own = copy(self)
        own.value = partial(self.value, **options)
        own.jvp, own.vjp = partial(self.jvp, **options), partial(self.vjp, **options)
        if self.value_and_gradient:
            own.value_and_gradient = partial(self.value_and_gradient, **options)
        return own


differentiable = Differentiable
