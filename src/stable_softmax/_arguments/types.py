"""The types of the public signatures."""

from typing import Any, Literal, Protocol, TypeAlias, TypeVar


class AnyArray(Protocol):
    """An array of any library: the attributes that lists, numbers and strings do not have."""

    @property
    def dtype(self) -> Any:
        """The dtype of the entries."""

    @property
    def ndim(self) -> int:
        """The number of dimensions."""

    @property
    def shape(self) -> tuple[Any, ...]:
        """The length along each dimension."""


#: The type of the logits and of the result.
Array = TypeVar("Array", bound=AnyArray)
Axis: TypeAlias = int | tuple[int, ...] | None
Reduction: TypeAlias = Literal["none", "mean", "sum"]
