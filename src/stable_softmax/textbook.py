"""The usual formulas of softmax, cross-entropy and gradient, for teaching and comparison only.

The unstable ones return inf and nan for large logits, and NumPy warns of it. All functions take logits (examples,
classes) and labels, `reference_answers`, as class ids (examples,), of any array library. Losses are in nats, one for
each example; gradients are those of the batch mean. Nothing is checked.
"""

from types import ModuleType
from typing import Any

from array_api_compat import array_namespace

from stable_softmax._libraries import library_of


def unstable_softmax(logits: Any, axis: int = -1) -> Any:
    """Return ``exp(z) / sum(exp(z))``, which overflows for logits above 709 in float64 and 88 in float32."""
    xp = array_namespace(logits)
    exponentials = xp.exp(logits)
    return exponentials / xp.sum(exponentials, axis=axis, keepdims=True)


def shifted_softmax(logits: Any, axis: int = -1) -> Any:
    """Return the softmax of the logits minus their maximum, which cannot overflow."""
    xp = array_namespace(logits)
    return unstable_softmax(logits - xp.max(logits, axis=axis, keepdims=True), axis)


def unstable_crossentropy(logits: Any, reference_answers: Any) -> Any:
    """Return ``log(sum(exp(z))) - z_y``, which overflows like the unstable softmax."""
    xp, logits, reference_answers = _namespace_and_arrays(logits, reference_answers)
    return xp.log(xp.sum(xp.exp(logits), axis=-1)) - _entry_at_label(xp, logits, reference_answers)


def crossentropy_via_probabilities(logits: Any, reference_answers: Any) -> Any:
    """Return ``-log(softmax(z)_y)``, which is inf once the probability underflows to 0."""
    xp, logits, reference_answers = _namespace_and_arrays(logits, reference_answers)
    return -xp.log(_entry_at_label(xp, shifted_softmax(logits), reference_answers))


def shifted_crossentropy(logits: Any, reference_answers: Any) -> Any:
    """Return ``log(sum(exp(d))) - d_y`` of the shifted logits ``d``, which is 0 once the label leads by far."""
    xp, logits, reference_answers = _namespace_and_arrays(logits, reference_answers)
    return unstable_crossentropy(logits - xp.max(logits, axis=-1, keepdims=True), reference_answers)


def unstable_gradient(logits: Any, reference_answers: Any) -> Any:
    """Return ``(p - onehot) / examples`` with the unstable softmax."""
    return _gradient(unstable_softmax(logits), reference_answers)


def shifted_gradient(logits: Any, reference_answers: Any) -> Any:
    """Return ``(p - onehot) / examples`` with the shifted softmax: 0 at the label once ``p`` rounds to 1."""
    return _gradient(shifted_softmax(logits), reference_answers)


def _namespace_and_arrays(logits: Any, reference_answers: Any) -> tuple[Any, ...]:
    """Return the namespace and both arrays, on one device mesh if PyTorch has split either over devices."""
    arrays = {"logits": logits, "reference_answers": reference_answers}
    return array_namespace(*arrays.values()), *library_of(*arrays.values()).on_one_mesh(arrays).values()


def _gradient(probabilities: Any, reference_answers: Any) -> Any:
    xp, probabilities, reference_answers = _namespace_and_arrays(probabilities, reference_answers)
    onehot = xp.astype(_is_label(probabilities, reference_answers), probabilities.dtype)
    return (probabilities - onehot) / probabilities.shape[0]


def _entry_at_label(xp: ModuleType, rows: Any, reference_answers: Any) -> Any:
    return xp.sum(xp.where(_is_label(rows, reference_answers), rows, 0), axis=-1)


def _is_label(rows: Any, reference_answers: Any) -> Any:
    ids = library_of(rows).indices_along(rows.shape[-1], reference_answers, reference_answers.dtype)
    return ids == reference_answers[:, None]
