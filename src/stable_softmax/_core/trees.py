"""Trees of arrays: tuples or lists of arrays, of such trees, and of other values, which stay unchanged."""

from collections.abc import Callable
from typing import Any


def is_leaf(value: Any) -> bool:
    """Whether a value is an array."""
    return hasattr(value, "ndim")


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """Return the tree with a function applied to each array."""
    if isinstance(tree, (tuple, list)):
        return _like(tree, [mapped(function, value) for value in tree])
    return function(tree) if is_leaf(tree) else tree


def arrays_of(tree: Any) -> list[Any]:
    """Return the arrays of a tree."""
    if isinstance(tree, (tuple, list)):
        return [array for value in tree for array in arrays_of(value)]
    return [tree] if is_leaf(tree) else []


class Slot:
    """A placeholder for an array."""


def rebuilt(tree: Any, arrays: list[Any]) -> Any:
    """Return the tree with its slots filled by arrays."""
    remaining = iter(arrays)

    def filled(tree: Any) -> Any:
        if isinstance(tree, (tuple, list)):
            return _like(tree, [filled(value) for value in tree])
        return next(remaining) if tree is Slot else tree

    return filled(tree)


def without_arrays(tree: Any) -> Any:
    """Return the tree with a slot in place of each array."""
    return mapped(lambda _: Slot, tree)


def _like(tree: Any, values: list[Any]) -> Any:
    return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)
