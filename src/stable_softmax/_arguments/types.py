"""The types of the public signatures."""

from typing import Any, Literal, Protocol, TypeAlias, TypeVar


class AnyArray(Protocol):
    """What the arrays of every library have, and lists, numbers and strings have not."""

    @property
    def dtype(self) -> Any:
        """Of the entries."""

    @property
    def ndim(self) -> int:
        """The number of dimensions."""

    @property
    def shape(self) -> tuple[Any, ...]:
        """The lengths along them."""


#: The type of the logits, which is that of the result.
Array = TypeVar("Array", bound=AnyArray)
Axis: TypeAlias = int | tuple[int, ...] | None
Reduction: TypeAlias = Literal["none", "mean", "sum"]
