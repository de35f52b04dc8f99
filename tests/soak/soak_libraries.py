"""The library under test on the arrays of NumPy and of JAX, compiled: NumPy arrays in, NumPy arrays out."""

from functools import partial

import numpy as np

import stable_softmax

DTYPES = {
    "numpy": ("float16", "float32", "float64"),
    "jax": ("float16", "bfloat16", "float32", "float64"),
}


def _results(logits, class_ids, axis):
    """Call the functions under test."""
    loss, gradient = stable_softmax.value_and_grad_softmax_crossentropy_with_logits(
        logits, class_ids, axis, reduction="none"
    )
    return {
        "softmax": stable_softmax.softmax(logits, axis),
        "log_softmax": stable_softmax.log_softmax(logits, axis),
        "crossentropy": loss,
        "gradient": gradient,
    }


def _on_numpy(logits, class_ids, dtype, axis):
    return _results(logits.astype(dtype), class_ids, axis)


def _compiled_by_jax():
    import jax

    jax.config.update("jax_enable_x64", True)
    compiled = jax.jit(_results, static_argnames="axis")

    def on_jax(logits, class_ids, dtype, axis):
        # JAX's own conversion would flush subnormal numbers to 0.
        converted = jax.numpy.asarray(logits.astype(jax.numpy.dtype(dtype)))
        results = compiled(converted, jax.numpy.asarray(class_ids), axis=axis)
        return {name: np.asarray(values).astype(np.float64) for name, values in results.items()}

    return on_jax


def caller(backend):
    """Return a function of logits and class ids in NumPy arrays, a dtype and an axis, that returns all results."""
    on_library = {"numpy": lambda: _on_numpy, "jax": _compiled_by_jax}[backend]()
    return partial(_along, on_library)


def _along(on_library, logits, class_ids, dtype, axis):
    """Put the classes of (rows, classes) along `axis` for the call, and back."""
    if axis == -1:
        return on_library(logits, class_ids, dtype, axis)
    results = on_library(np.ascontiguousarray(logits.T), class_ids, dtype, axis)
    return {name: values.T for name, values in results.items()}
