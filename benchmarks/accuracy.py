"""Loss and true-class gradient of confident predictions, ours and the peers', against exact arithmetic.

Prints the largest relative errors, loss / gradient, as a Markdown table. An error of 1 means that not one digit is
right.
"""

import warnings
from importlib.metadata import version

import jax
import numpy as np
import optax
import torch
from scipy import special
from sklearn._loss.loss import HalfMultinomialLoss

import stable_softmax
from stable_softmax.reference.exact import exact_rows
from stable_softmax.report._cases import confident

LEADS = {"float32": (5, 10, 20, 40), "float64": (20, 40)}


def ours(logits, class_ids):
    """Return stable-softmax's losses and gradients, one row for each example, as all functions below do."""
    return stable_softmax.value_and_grad_softmax_crossentropy_with_logits(logits, class_ids, reduction="none")


def scipy(logits, class_ids):
    """Compose SciPy's log_softmax and softmax, as its users do."""
    onehot = np.eye(logits.shape[1], dtype=logits.dtype)[class_ids]
    losses = -special.log_softmax(logits, axis=1)[np.arange(len(logits)), class_ids]
    return losses, special.softmax(logits, axis=1) - onehot


def scikit_learn(logits, class_ids):
    """Call the Cython loss of LogisticRegression."""
    loss = HalfMultinomialLoss(n_classes=logits.shape[1])
    return loss.loss_gradient(class_ids.astype(logits.dtype), logits)


def optax_under_jit(logits, class_ids):
    """Differentiate Optax's loss with JAX."""

    @jax.jit
    def value_and_grad(z):
        def total(z):
            losses = optax.softmax_cross_entropy_with_integer_labels(z, class_ids)
            return losses.sum(), losses

        gradient, losses = jax.grad(total, has_aux=True)(z)
        return losses, gradient

    return tuple(map(np.asarray, value_and_grad(logits)))


def pytorch(logits, class_ids):
    """Differentiate PyTorch's loss."""
    z = torch.asarray(logits.copy()).requires_grad_()
    losses = torch.nn.functional.cross_entropy(z, torch.asarray(class_ids), reduction="none")
    losses.sum().backward()
    return losses.detach().numpy(), z.grad.numpy()


FORMS = {
    "stable-softmax": ours,
    f"SciPy {version('scipy')}": scipy,
    f"scikit-learn {version('scikit-learn')}": scikit_learn,
    f"Optax {version('optax')}, JAX {version('jax')}": optax_under_jit,
    f"PyTorch {torch.__version__}": pytorch,
}


def errors(form, dtype, lead):
    """Return the largest relative errors of the losses and of the gradients at the right class."""
    case = confident(lead)
    logits, class_ids = case.logits.astype(dtype), case.class_ids
    at_label = np.arange(len(logits)), class_ids
    exact = exact_rows(logits, class_ids)
    losses, gradient = form(logits, class_ids)
    pairs = (
        (losses, exact.crossentropy.nearest),
        (gradient[at_label], exact.gradient.nearest[at_label]),
    )
    return [np.max(np.abs(values - right) / np.abs(right)) for values, right in pairs]


def main():
    """Print the table."""
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("error")
    columns = [(dtype, lead) for dtype, leads in LEADS.items() for lead in leads]
    print("| |", " | ".join(f"{dtype}, lead {lead}" for dtype, lead in columns), "|")
    print("|---|" + "---|" * len(columns))
    for name, form in FORMS.items():
        cells = ("{:.0e} / {:.0e}".format(*errors(form, *column)) for column in columns)
        print(f"| {name} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
