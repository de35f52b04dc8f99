"""Trees of arrays: tuples or lists of arrays, of such trees, and of other values, which are left as they are."""

from collections.abc import Callable
from typing import Any


def is_leaf(value: Any) -> bool:
    """Whether a value is an array."""
    return hasattr(value, "ndim")


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """Return the tree with the function of each of its arrays."""
    if isinstance(tree, (tuple, list)):
        return _like(tree, [mapped(function, value) for value in tree])
    return function(tree) if is_leaf(tree) else tree


def arrays_of(tree: Any) -> list[Any]:
    """Return the arrays of a tree."""
    if isinstance(tree, (tuple, list)):
        return [array for value in tree for array in arrays_of(value)]
    return [tree] if is_leaf(tree) else []


class Slot:
    """The place of an array in a tree that holds none."""


def rebuilt(tree: Any, arrays: list[Any]) -> Any:
    """Return a tree of slots with arrays in their places."""
    remaining = iter(arrays)

    def filled(tree: Any) -> Any:
        if isinstance(tree, (tuple, list)):
            return _like(tree, [filled(value) for value in tree])
        return next(remaining) if tree is Slot else tree

    return filled(tree)


def without_arrays(tree: Any) -> Any:
    """Return the tree with slots in the places of its arrays."""
    return mapped(lambda _: Slot, tree)


def _like(tree: Any, values: list[Any]) -> Any:
    return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)
