"""Softmax regression on scikit-learn's handwritten digits: one loss, trained from NumPy and from JAX.

NumPy hands our value and gradient to SciPy's L-BFGS-B; JAX differentiates our loss itself. Both minimize the same
function, so both must end in the same minimum.
"""

import jax
import numpy as np
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from stable_softmax import softmax_crossentropy_with_logits, value_and_grad_softmax_crossentropy_with_logits

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


@jax.jit
@jax.value_and_grad
def jax_objective(flat_weights):
    """Return the same, with the gradient by JAX."""
    weights = flat_weights.reshape(SHAPE)
    loss = softmax_crossentropy_with_logits(train_features @ weights, jax.numpy.asarray(train_digits), reduction="mean")
    return loss + REGULARIZATION / 2 * jax.numpy.sum(weights**2)


def trained(objective):
    """Minimize an objective from zero weights."""
    options = {"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-9}
    return minimize(objective, np.zeros(SHAPE).ravel(), jac=True, method="L-BFGS-B", options=options)


def accuracy(result):
    """Return the share of the held-out digits that are recognized."""
    return np.mean(np.argmax(test_features @ result.x.reshape(SHAPE), axis=1) == test_digits)


def main():
    """Train both ways and compare."""
    jax.config.update("jax_enable_x64", True)
    results = {"NumPy": trained(numpy_objective), "JAX": trained(jax_objective)}
    for name, result in results.items():
        print(f"{name}: loss {result.fun:.12f} after {result.nit} iterations, accuracy {accuracy(result):.4f}")
    difference = abs(results["NumPy"].fun - results["JAX"].fun) / results["NumPy"].fun
    apart = np.max(np.abs(results["NumPy"].x - results["JAX"].x))
    print(f"the minima differ by {difference:.1e} of the loss, the weights by at most {apart:.1e}")
    assert difference < 1e-10
    assert all(accuracy(result) > 0.94 for result in results.values())


if __name__ == "__main__":
    main()
