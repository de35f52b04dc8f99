"""The Cython loss of scikit-learn's LogisticRegression, on one thread."""

from sklearn._loss.loss import HalfMultinomialLoss

NAME = "scikit-learn"


def arguments(logits, class_ids):
    """Return the class ids in the logits' dtype, as the loss wants them."""
    return logits, class_ids.astype(logits.dtype)


def _value_and_gradient(logits, class_ids):
    losses, gradient = HalfMultinomialLoss(n_classes=logits.shape[1]).loss_gradient(class_ids, logits, n_threads=1)
    return losses.mean(), gradient


FORMS = {"value and gradient": _value_and_gradient}
