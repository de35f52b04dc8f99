"""The results of the public functions, as type checkers see them.

Results that are NumPy arrays promise no shape, since it may be another one than that of the logits. They have the dtype
of floating logits, by which an argument `dtype` is overlooked; for other logits, they promise no dtype. Results of
other libraries have the type of the logits.

Each decorator returns the function itself, and keeps what is known of its other parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:  # since importing the types of NumPy, and building protocols, takes time at run time
    from typing import Concatenate, Literal, ParamSpec, Protocol, TypeAlias, TypedDict, TypeVar, Unpack, overload

    import numpy as np
    from numpy.typing import NDArray

    from stable_softmax._arguments.types import AnyArray, Array, Axis

    Real = TypeVar("Real", bound=np.floating[Any])
    P = ParamSpec("P")
    R = TypeVar("R")
    Function: TypeAlias = Callable[Concatenate[Any, P], Any]
    Pair: TypeAlias = tuple[R, R]
    AndPair: TypeAlias = tuple[R, tuple[R, R]]
    # Those of features and weight are None only where `with_respect_to` leaves them out.
    AndGradients: TypeAlias = tuple[R, tuple[R | Any, R | Any, R | None]]
    AndNamed: TypeAlias = tuple[R, dict[str, R]]

    class ArrayOfLogits(Protocol[P]):
        @overload
        def __call__(self, logits: NDArray[Real], *args: P.args, **options: P.kwargs) -> NDArray[Real]: ...
        @overload
        def __call__(self, logits: NDArray[Any], *args: P.args, **options: P.kwargs) -> NDArray[Any]: ...
        @overload
        def __call__(self, logits: Array, *args: P.args, **options: P.kwargs) -> Array: ...

    class PairOfLogits(Protocol[P]):
        @overload
        def __call__(self, logits: NDArray[Real], *args: P.args, **options: P.kwargs) -> Pair[NDArray[Real]]: ...
        @overload
        def __call__(self, logits: NDArray[Any], *args: P.args, **options: P.kwargs) -> Pair[NDArray[Any]]: ...
        @overload
        def __call__(self, logits: Array, *args: P.args, **options: P.kwargs) -> Pair[Array]: ...

    class ArrayAndPairOfLogits(Protocol[P]):
        @overload
        def __call__(self, logits: NDArray[Real], *args: P.args, **options: P.kwargs) -> AndPair[NDArray[Real]]: ...
        @overload
        def __call__(self, logits: NDArray[Any], *args: P.args, **options: P.kwargs) -> AndPair[NDArray[Any]]: ...
        @overload
        def __call__(self, logits: Array, *args: P.args, **options: P.kwargs) -> AndPair[Array]: ...

    class ArrayOfFeatures(Protocol[P]):
        @overload
        def __call__(self, features: NDArray[Real], *args: P.args, **options: P.kwargs) -> NDArray[Real]: ...
        @overload
        def __call__(self, features: NDArray[Any], *args: P.args, **options: P.kwargs) -> NDArray[Any]: ...
        @overload
        def __call__(self, features: Array, *args: P.args, **options: P.kwargs) -> Array: ...

    class GradientsOfFeatures(Protocol[P]):
        @overload
        def __call__(
            self, features: NDArray[Real], *args: P.args, **options: P.kwargs
        ) -> AndGradients[NDArray[Real]]: ...
        @overload
        def __call__(
            self, features: NDArray[Any], *args: P.args, **options: P.kwargs
        ) -> AndGradients[NDArray[Any]]: ...
        @overload
        def __call__(self, features: Array, *args: P.args, **options: P.kwargs) -> AndGradients[Array]: ...

    class NamedGradientsOfFeatures(Protocol[P]):
        @overload
        def __call__(self, features: NDArray[Real], *args: P.args, **options: P.kwargs) -> AndNamed[NDArray[Real]]: ...
        @overload
        def __call__(self, features: NDArray[Any], *args: P.args, **options: P.kwargs) -> AndNamed[NDArray[Any]]: ...
        @overload
        def __call__(self, features: Array, *args: P.args, **options: P.kwargs) -> AndNamed[Array]: ...

    class Terms(TypedDict, total=False):
        weights: AnyArray | None
        where: AnyArray | None
        keepdims: bool
        dtype: Any

    Log: TypeAlias = Literal[False]  # the logarithm alone
    AndSign: TypeAlias = Literal[True]

    class LogSumExp(Protocol):
        @overload
        def __call__(
            self, logits: NDArray[Real], axis: Axis = -1, *, return_sign: Log = False, **terms: Unpack[Terms]
        ) -> NDArray[Real]: ...
        @overload
        def __call__(
            self, logits: NDArray[Any], axis: Axis = -1, *, return_sign: Log = False, **terms: Unpack[Terms]
        ) -> NDArray[Any]: ...
        @overload
        def __call__(
            self, logits: Array, axis: Axis = -1, *, return_sign: Log = False, **terms: Unpack[Terms]
        ) -> Array: ...
        @overload
        def __call__(
            self, logits: NDArray[Real], axis: Axis = -1, *, return_sign: AndSign, **terms: Unpack[Terms]
        ) -> Pair[NDArray[Real]]: ...
        @overload
        def __call__(
            self, logits: NDArray[Any], axis: Axis = -1, *, return_sign: AndSign, **terms: Unpack[Terms]
        ) -> Pair[NDArray[Any]]: ...
        @overload
        def __call__(
            self, logits: Array, axis: Axis = -1, *, return_sign: AndSign, **terms: Unpack[Terms]
        ) -> Pair[Array]: ...
        @overload
        def __call__(self, logits: AnyArray, axis: Axis = -1, *, return_sign: bool, **terms: Unpack[Terms]) -> Any: ...


def gives_array(function: Function[P]) -> ArrayOfLogits[P]:
    return cast("ArrayOfLogits[P]", function)


def gives_pair(function: Function[P]) -> PairOfLogits[P]:
    return cast("PairOfLogits[P]", function)


def gives_array_and_pair(function: Function[P]) -> ArrayAndPairOfLogits[P]:
    return cast("ArrayAndPairOfLogits[P]", function)


def gives_array_from_features(function: Function[P]) -> ArrayOfFeatures[P]:
    return cast("ArrayOfFeatures[P]", function)


def gives_gradients(function: Function[P]) -> GradientsOfFeatures[P]:
    return cast("GradientsOfFeatures[P]", function)


def gives_named_gradients(function: Function[P]) -> NamedGradientsOfFeatures[P]:
    return cast("NamedGradientsOfFeatures[P]", function)


def gives_logarithm_or_pair(function: Callable[..., Any]) -> LogSumExp:
    return cast("LogSumExp", function)
