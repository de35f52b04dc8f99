"""Ordinary predictions on which the usual formulas go wrong, computed with NumPy in float32."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    softmax_crossentropy_with_logits,
    softmax_kl_divergence,
    textbook,
)
from stable_softmax.command_line.usual import usual_kl_divergence
from stable_softmax.reference.divergences import exact_kl_divergence
from stable_softmax.reference.exact import exact_rows

_TEMPERATURE = np.float32(100)
#: Of two images with their own texts, and with each other's.
_SIMILARITIES = np.asarray([[0.30, 0.12], [0.10, 0.29]], np.float32)


class Prediction(NamedTuple):
    """One quantity of a prediction, by the usual formula, by this library, and exactly."""

    what: str
    usual: float
    ours: float
    exact: float


def ordinary_predictions() -> list[Prediction]:
    """Compute them all."""
    return [_confident_loss(), _slope_by_temperature(), _divergence_of_near_models()]


def _confident_loss() -> Prediction:
    logits, label = np.asarray([[20, 0]], np.float32), np.asarray([0])
    usual, ours = (f(logits, label)[0] for f in (textbook.shifted_crossentropy, softmax_crossentropy_with_logits))
    exact = exact_rows(logits, label).crossentropy.nearest[0]
    return Prediction("loss of logits 20, 0, label 0", float(usual), float(ours), float(exact))


def _slope_by_temperature() -> Prediction:
    logits, labels = _TEMPERATURE * _SIMILARITIES, np.asarray([0, 1])

    def slope(gradient: Callable[[Any, Any], Any]) -> float:
        return float(np.sum(gradient(logits, labels) * _SIMILARITIES))

    exact = np.sum(exact_rows(logits, labels, divisor=2).gradient.nearest * _SIMILARITIES.astype(np.float64))
    usual, ours = slope(textbook.shifted_gradient), slope(grad_softmax_crossentropy_with_logits)
    return Prediction("slope by a temperature of 100 (CLIP)", usual, ours, float(exact))


def _divergence_of_near_models() -> Prediction:
    rng = np.random.default_rng(0)
    reference = (3 * rng.normal(size=(1, 1000))).astype(np.float32)
    logits = (reference + 1e-4 * rng.normal(size=reference.shape)).astype(np.float32)
    usual, ours = (f(logits, reference)[0] for f in (usual_kl_divergence, softmax_kl_divergence))
    (exact,) = exact_kl_divergence(logits[0], reference[0]).nearest
    return Prediction("KL, 1,000 logits that differ by 1e-4", float(usual), float(ours), float(exact))
