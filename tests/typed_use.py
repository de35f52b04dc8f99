"""Code as users write it, for type checkers alone: what they have to accept, infer and refuse."""

from functools import partial
from typing import Any, assert_type

import jax
import numpy as np
from numpy.typing import NDArray

import stable_softmax
from stable_softmax import (
    SoftmaxStatistics,
    grad_softmax_crossentropy_with_logits,
    hessian_diagonal_softmax_crossentropy_with_logits,
    hvp_softmax_crossentropy_with_logits,
    linear_softmax_crossentropy,
    log_softmax,
    logsumexp,
    softmax,
    softmax_crossentropy_with_logits,
    softmax_statistics,
    textbook,
    value_and_grad_linear_softmax_crossentropy,
    value_and_grad_linear_softmax_kl_divergence,
    value_and_grad_softmax_crossentropy_with_logits,
    value_and_grad_softmax_kl_divergence,
)

Single = NDArray[np.float32]


def single_precision_stays(logits: Single, class_ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> None:
    assert_type(softmax(logits, axis=(0, 1), where=mask), Single)
    assert_type(log_softmax(logits, None), Single)
    assert_type(logsumexp(logits, where=mask, keepdims=True), Single)
    assert_type(logsumexp(logits, weights=np.ones(3)), Single)
    assert_type(logsumexp(logits, weights=np.ones(3), return_sign=True), tuple[Single, Single])
    assert_type(softmax_crossentropy_with_logits(logits, class_ids, 1, reduction="mean"), Single)
    assert_type(grad_softmax_crossentropy_with_logits(logits, class_ids, where=mask, ignore_index=-100), Single)
    assert_type(hessian_diagonal_softmax_crossentropy_with_logits(logits, class_ids, z_loss=0.1), Single)
    assert_type(hvp_softmax_crossentropy_with_logits(logits, class_ids, np.ones(3), label_smoothing=0.1), Single)
    loss, gradient = value_and_grad_softmax_crossentropy_with_logits(logits, class_ids, class_weights=np.ones(3))
    assert_type(loss, Single)
    assert_type(gradient, Single)


def shapes_are_not_promised(class_ids: NDArray[np.int64], sign: bool) -> None:
    logits = np.zeros((2, 3))
    assert_type(logits, np.ndarray[tuple[int, int], np.dtype[np.float64]])
    assert_type(softmax_crossentropy_with_logits(logits, class_ids), NDArray[np.float64])
    assert_type(logsumexp(logits), NDArray[np.float64])
    assert_type(logsumexp(logits, return_sign=sign), Any)
    assert_type(linear_softmax_crossentropy(logits, logits, class_ids, reduction="none"), NDArray[np.float64])
    divergence, (gradient, _) = value_and_grad_softmax_kl_divergence(logits, logits)
    assert_type(divergence, NDArray[np.float64])
    assert_type(gradient, NDArray[np.float64])


def dtypes_of_integers_are_not_promised(logits: NDArray[np.int64]) -> None:
    assert_type(softmax(logits), NDArray[Any])
    assert_type(logsumexp(logits, return_sign=True), tuple[NDArray[Any], NDArray[Any]])


def parameters_keep_their_names(logits: Single, class_ids: NDArray[np.int64]) -> None:
    assert_type(softmax_crossentropy_with_logits(logits=logits, reference_answers=class_ids), Single)
    assert_type(linear_softmax_crossentropy(features=logits, weight=logits, reference_answers=class_ids), Single)
    along_columns: Single = partial(softmax, axis=0)(logits)
    assert_type(along_columns.shape, tuple[Any, ...])


def heads_and_parts(logits: Single, class_ids: NDArray[np.int64], bias: Single) -> None:
    assert_type(linear_softmax_crossentropy(logits, logits, class_ids, bias, softcap=30.0), Single)
    loss, gradients = value_and_grad_linear_softmax_crossentropy(logits, logits, class_ids, reduction="sum")
    assert_type(loss, Single)
    assert_type(gradients, tuple[Single | Any, Single | Any, Single | None])
    _, chosen = value_and_grad_linear_softmax_crossentropy(logits, logits, class_ids, with_respect_to="weight")
    assert_type(chosen, tuple[Single | Any, Single | Any, Single | None])
    loss, named = value_and_grad_linear_softmax_kl_divergence(logits, logits, logits, logits)
    assert_type(loss, Single)
    assert_type(named, dict[str, Single])
    statistics = softmax_statistics(logits, class_ids, first_class=3, class_weights=bias, ignore_index=-100)
    assert_type(statistics.merge(statistics), SoftmaxStatistics)


def jax_arrays_stay(logits: jax.Array, class_ids: NDArray[np.int32], z_loss: jax.Array) -> None:
    assert_type(softmax_crossentropy_with_logits(logits, class_ids, z_loss=z_loss), jax.Array)
    assert_type(softmax(logits, -1), jax.Array)


def names_are_there(logits: Single) -> None:
    assert_type(stable_softmax.__version__, str)
    textbook.shifted_softmax(logits)
    stable_softmax.textbook.unstable_softmax(logits)
    with stable_softmax.set_workers(2):
        assert_type(stable_softmax.get_workers(), int)


# An ignored error that is none is an error, so that each of these is refused.
def what_is_no_array_is_refused(logits: Single, class_ids: NDArray[np.int64]) -> None:
    softmax("abc")  # type: ignore[call-overload]
    softmax([1.0, 2.0])  # type: ignore[call-overload]
    logsumexp(1.0)  # type: ignore[call-overload]
    softmax(logits, where=[True])  # type: ignore[call-overload]
    logsumexp(logits, weights=[1.0])  # type: ignore[call-overload]
    softmax_crossentropy_with_logits(logits, [0, 1])  # type: ignore[call-overload]
    softmax_crossentropy_with_logits(logits, class_ids, reduction="average")  # type: ignore[call-overload]
    softmax_crossentropy_with_logits(logits, class_ids, -1, None)  # type: ignore[call-overload]
