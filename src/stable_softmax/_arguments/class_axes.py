"""Several class axes of a loss, made one: class ids count the classes in C order of the axes as they are given."""

from typing import Any, NamedTuple

from stable_softmax._arguments.arrays import normalized_axes, where_of
from stable_softmax._core.layout import Layout
from stable_softmax._libraries.standard import Library
from stable_softmax._maths.axes import merged, restored


class ClassAxes(NamedTuple):
    """Class axes of logits: how arrays are brought into the shape (..., C), and results back."""

    #: The shape of the logits, and its axes: first the others, then the class axes.
    shape: tuple[int, ...]
    order: tuple[int, ...]
    #: Number of the others, which is the class axis of the arrays with one.
    others: int

    def merged(self, lib: Library, array: Any) -> Any:
        """Return an array that has the shape of the logits with its class axes made one, the last."""
        return merged(lib, array, self.order, self.others)

    def restored(self, lib: Library, array: Any) -> Any:
        """Return an array that has one class axis in the shape of the logits."""
        return restored(lib, array, self.order, tuple([self.shape[axis] for axis in self.order]))


def class_axes_of(shape: tuple[int, ...], axis: tuple[int, ...]) -> ClassAxes:
    """Check a tuple of class axes."""
    axes = normalized_axes(axis, len(shape))
    others = tuple([i for i in range(len(shape)) if i not in axes])
    return ClassAxes(shape, (*others, *axes), len(others))


def merged_arguments(lib: Library, axes: ClassAxes, own: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a loss by name, those with an entry for each logit with one class axis."""
    shape = axes.shape
    batch = tuple([shape[i] for i in axes.order[: axes.others]])
    answers = own["reference_answers"]
    if tuple(answers.shape) not in (batch, shape):
        raise ValueError(
            f"reference_answers must have shape {batch}, which is logits' shape {shape} without the axes "
            f"{axes.order[axes.others :]}, or for probabilities logits' shape, not {tuple(answers.shape)}"
        )
    arguments = dict(own)
    if "vector" in own and tuple(own["vector"].shape) != shape:
        raise ValueError(f"vector must have logits' shape {shape}, not {tuple(own['vector'].shape)}")
    if "where" in own:
        layout = Layout(shape, axes.order[axes.others :], None, None)
        arguments["where"] = lib.xp.broadcast_to(where_of(lib, own["where"], layout), shape)
    for name in ("logits", "reference_answers", "vector", "where"):
        if name in arguments and tuple(arguments[name].shape) == shape:
            arguments[name] = axes.merged(lib, arguments[name])
    return arguments
