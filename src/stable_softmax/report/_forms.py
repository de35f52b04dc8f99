"""What is compared: the textbook's forms, the function of each library's users, and ours."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    softmax,
    softmax_crossentropy_with_logits,
    textbook,
)

OURS = "stable-softmax"
UNSTABLE, SHIFTED = "unstable", "shifted"
OPERATIONS = ("softmax", "crossentropy", "gradient")

Function: TypeAlias = Callable[[Any, Any], Any]


class Form(NamedTuple):
    """One way to write the operations: functions of logits (examples, classes) and class ids (examples,).

    The loss is that of each example, the gradient that of the mean.
    """

    softmax: Function
    crossentropy: Function
    gradient: Function


def forms_of(backend: str) -> dict[str, Form]:
    """Return the forms for arrays of a backend, with what its users write where that is installed."""
    return {UNSTABLE: _UNSTABLE, SHIFTED: _SHIFTED, **_PEERS[backend](), OURS: _OURS}


def _without_class_ids(function: Callable[[Any], Any]) -> Function:
    return lambda logits, _: function(logits)


_UNSTABLE = Form(
    _without_class_ids(textbook.unstable_softmax), textbook.unstable_crossentropy, textbook.unstable_gradient
)
_SHIFTED = Form(_without_class_ids(textbook.shifted_softmax), textbook.shifted_crossentropy, textbook.shifted_gradient)
_OURS = Form(_without_class_ids(softmax), softmax_crossentropy_with_logits, grad_softmax_crossentropy_with_logits)


def _scipy() -> dict[str, Form]:
    if not find_spec("scipy"):
        return {}
    special = import_module("scipy.special")

    def crossentropy(logits: Any, class_ids: Any) -> Any:
        return -special.log_softmax(logits, axis=1)[np.arange(len(logits)), class_ids]

    def gradient(logits: Any, class_ids: Any) -> Any:
        onehot = np.arange(logits.shape[1]) == class_ids[:, None]
        return (special.softmax(logits, axis=1) - onehot) / len(logits)

    return {"SciPy": Form(_without_class_ids(partial(special.softmax, axis=1)), crossentropy, gradient)}


def _jax() -> dict[str, Form]:
    """Return the form of Optax, or the same in terms of JAX's own functions."""
    jax = import_module("jax")

    def by_log_softmax(logits: Any, class_ids: Any) -> Any:
        return -jax.numpy.take_along_axis(jax.nn.log_softmax(logits), class_ids[:, None], axis=1)[:, 0]

    name, crossentropy = "jax.nn", by_log_softmax
    if find_spec("optax"):
        name, crossentropy = "Optax", import_module("optax").softmax_cross_entropy_with_integer_labels

    def gradient(logits: Any, class_ids: Any) -> Any:
        return jax.grad(lambda z: crossentropy(z, class_ids).mean())(logits)

    return {name: Form(_without_class_ids(jax.nn.softmax), crossentropy, gradient)}


def _torch() -> dict[str, Form]:
    torch = import_module("torch")
    cross_entropy = torch.nn.functional.cross_entropy

    def gradient(logits: Any, class_ids: Any) -> Any:
        return torch.func.grad(cross_entropy)(logits, class_ids)

    softmax_of_rows = _without_class_ids(partial(torch.softmax, dim=1))
    return {"torch.nn": Form(softmax_of_rows, partial(cross_entropy, reduction="none"), gradient)}


_PEERS = {"numpy": _scipy, "jax": _jax, "torch": _torch}
