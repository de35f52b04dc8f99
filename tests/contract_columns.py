"""What the contract's table is made of: rows, and the functions that they are checked for, on any backend."""

import re
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import pytest
from array_api_compat import array_namespace, is_jax_array
from loss_options import with_arrays

from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    hessian_diagonal_softmax_crossentropy_with_logits,
    hvp_softmax_crossentropy_with_logits,
    softmax_crossentropy_with_logits,
    value_and_grad_softmax_crossentropy_with_logits,
)

#: Stands for any finite number.
FINITE = "finite"
#: The expected numbers come from a few operations in float64, the results from a few more in float32.
TOLERANCE = 16 * float(np.finfo(np.float32).eps)
FUNCTIONS = {
    "loss": softmax_crossentropy_with_logits,
    "gradient": grad_softmax_crossentropy_with_logits,
    "both": value_and_grad_softmax_crossentropy_with_logits,
    "hvp": hvp_softmax_crossentropy_with_logits,
    "diagonal": hessian_diagonal_softmax_crossentropy_with_logits,
}
# JAX compiles the first two for nothing that "both" does not tell.
COLUMNS = [
    *(pytest.param(name, marks=pytest.mark.thorough_on("jax")) for name in ("loss", "gradient")),
    *("both", "hvp", "diagonal"),
    pytest.param("autodiff", marks=pytest.mark.only_backends("jax", "torch")),
]


class Row(NamedTuple):
    """What a loss is called with, what it gives, and the ValueError instead where values can be read for free."""

    name: str
    logits: Any
    answers: Any
    loss: Any
    gradient: Any
    error: str | None
    options: dict[str, Any]

    def __str__(self):
        return self.name

    def outcome(self, backend):
        """Return the context of a call, which gives what was raised, if anything has to be."""
        raises = self.error and backend.reads_values
        return pytest.raises(ValueError, match=matching(self.error)) if raises else nullcontext()

    def results(self, column):
        """Return what a column gives: what the Hessian gives is NaN and 0 where the gradient is, and else finite."""
        if column in ("hvp", "diagonal"):
            gradient = np.asarray(self.gradient, float)
            product = np.full(gradient.shape, FINITE, object)
            product[np.isnan(gradient)], product[gradient == 0] = np.nan, 0
            return (product,)
        return {"loss": (self.loss,), "both": (self.loss, self.gradient)}.get(column, (self.gradient,))


def row(name, logits, answers, loss, gradient, error=None, **options):
    """Return a row, whose excluded classes have gradient 0 even where the loss is NaN."""
    if gradient is not None and "where" in options:
        gradient = np.where(options["where"], np.asarray(gradient, object), 0).tolist()
    return Row(name, logits, answers, loss, gradient, error, {"reduction": "none", **options})


def outside(value, position="(1,)", kept=""):
    return f"reference_answers must be class ids in [0, 3){kept}, but is {value} at position {position}"


def excluded(value):
    return outside(value, kept=" that where keeps")


def negative(value, position="(1, 0)"):
    return (
        f"reference_answers must be target probabilities, not below -0.001, but is {value} at position {position}; "
        "are logits and reference_answers swapped, or are these logarithms?"
    )


def weight(value, name="class_weights"):
    return f"{name} must be finite and not negative, but is {value} at position (1,)"


def autodiff(logits, reference_answers, **options):
    """Return the gradient that the library's own differentiation gives."""

    def total(logits):
        return array_namespace(logits).sum(softmax_crossentropy_with_logits(logits, reference_answers, **options))

    if is_jax_array(logits):
        import jax

        return jax.grad(total)(logits)
    logits = logits.detach().requires_grad_()
    total(logits).backward()
    return logits.grad


def results(backend, column, logits, reference_answers, dtypes=("float32", "float32"), **options):
    """Return what a column gives, and check that it is such an array as the logits, and that no input has changed.

    The dtypes are those of the logits and of all else that is floating.
    """
    arrays = {name: options.pop(name) for name in ("where", "class_weights", "example_weights") if name in options}
    positional = [logits, reference_answers]
    if column == "hvp":
        positional.append(np.random.default_rng(1).normal(size=np.shape(logits)))
    given = [on_backend(backend, positional[0], dtypes[0])]
    given += [on_backend(backend, values, dtypes[1]) for values in (*positional[1:], *arrays.values())]
    before = [backend.numpy(array).copy() for array in given]
    function = with_arrays(FUNCTIONS.get(column, autodiff), tuple(arrays))
    returned = backend.bound(function, **options)(*given)
    returned = returned if isinstance(returned, tuple) else (returned,)
    for result in returned:
        assert type(result) is type(given[0]) or isinstance(result, np.generic)
        assert result.dtype == given[0].dtype
    values = tuple(map(backend.numpy, returned))
    for array, same in zip(given, before, strict=True):
        np.testing.assert_array_equal(backend.numpy(array), same)
    return values


def on_backend(backend, values, dtype):
    """Return an array, whose dtype is `dtype` if it is floating; read-only where there is such a thing."""
    values = np.asarray(values)
    array = backend.logits(values, dtype) if values.dtype.kind == "f" else backend.array(values)
    if isinstance(array, np.ndarray):
        array.flags.writeable = False
    return array


def assert_pattern(result, pattern):
    """Check for the numbers of a pattern, and for finite ones where it says no more."""
    pattern = np.asarray(pattern, object)
    assert result.shape == pattern.shape
    finite = pattern == FINITE
    assert np.all(np.isfinite(result[finite]))
    np.testing.assert_allclose(result[~finite], pattern[~finite].astype(float), rtol=TOLERANCE)


def matching(message):
    """Return the regular expression of a whole message, in which three dots stand for anything."""
    # JAX adds a note to an error that comes while it traces.
    return f"^{'.*'.join(map(re.escape, message.split('...')))}(?:$|\n)"
