"""Softmax regression on scikit-learn's handwritten digits: one loss, minimized in three ways.

NumPy hands our value and gradient to SciPy's L-BFGS-B, and our Hessian-vector product to its Newton method; JAX
differentiates our loss itself. All minimize the same function, so all must end in the same minimum.
"""

import jax
import numpy as np
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from stable_softmax import (
    hvp_softmax_crossentropy_with_logits,
    softmax_crossentropy_with_logits,
    value_and_grad_softmax_crossentropy_with_logits,
)

CLASSES = 10
REGULARIZATION = 1e-3

images, digits = load_digits(return_X_y=True)
features = np.column_stack([images / 16, np.ones(len(images))])
train_features, test_features, train_digits, test_digits = train_test_split(
    features, digits, test_size=0.3, random_state=0, stratify=digits
)
SHAPE = (features.shape[1], CLASSES)


def numpy_objective(flat_weights):
    """Return the mean loss and its gradient, by the chain rule from the gradient with respect to the logits."""
    weights = flat_weights.reshape(SHAPE)
    loss, gradient = value_and_grad_softmax_crossentropy_with_logits(train_features @ weights, train_digits)
    loss += REGULARIZATION / 2 * np.sum(weights**2)
    return loss, (train_features.T @ gradient + REGULARIZATION * weights).ravel()


def numpy_hessian_product(flat_weights, flat_direction):
    """Return the Hessian of the objective times a direction: the logits are linear in the weights."""
    logits, change = (train_features @ flat.reshape(SHAPE) for flat in (flat_weights, flat_direction))
    product = hvp_softmax_crossentropy_with_logits(logits, train_digits, change)
    return (train_features.T @ product).ravel() + REGULARIZATION * flat_direction


@jax.jit
@jax.value_and_grad
def jax_objective(flat_weights):
    """Return the same, with the gradient by JAX."""
    weights = flat_weights.reshape(SHAPE)
    loss = softmax_crossentropy_with_logits(train_features @ weights, jax.numpy.asarray(train_digits), reduction="mean")
    return loss + REGULARIZATION / 2 * jax.numpy.sum(weights**2)


def trained(objective, **options):
    """Minimize an objective from zero weights."""
    return minimize(objective, np.zeros(SHAPE).ravel(), jac=True, **options)


def accuracy(result):
    """Return the share of the held-out digits that are recognized."""
    return np.mean(np.argmax(test_features @ result.x.reshape(SHAPE), axis=1) == test_digits)


def main():
    """Train in all ways and compare."""
    jax.config.update("jax_enable_x64", True)
    quasi_newton = {"method": "L-BFGS-B", "options": {"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-9}}
    newton = {"method": "trust-ncg", "hessp": numpy_hessian_product, "options": {"gtol": 1e-9}}
    results = {
        "NumPy, L-BFGS-B": trained(numpy_objective, **quasi_newton),
        "JAX, L-BFGS-B": trained(jax_objective, **quasi_newton),
        "NumPy, trust-ncg": trained(numpy_objective, **newton),
    }
    lowest = min(result.fun for result in results.values())
    for name, result in results.items():
        above = (result.fun - lowest) / lowest
        print(
            f"{name}: loss {result.fun:.12f}, {above:.1e} of it above the lowest, "
            f"after {result.nit} iterations; held-out accuracy {accuracy(result):.4f}"
        )
        assert above < 1e-12
        assert accuracy(result) > 0.94


if __name__ == "__main__":
    main()
