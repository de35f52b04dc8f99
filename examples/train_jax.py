"""A JAX training step as pipelines have it: jit, donated buffers, and gradients accumulated by lax.scan.

A two-layer network learns scikit-learn's handwritten digits twice, with bfloat16 products, as on accelerators; between
the two runs, one line differs: the loss. In bfloat16, a lead of 6 makes the usual loss and its gradient exactly 0, and
training stops, or drifts on what momentum is left; here it goes on.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from stable_softmax import softmax_crossentropy_with_logits

LOSSES = {
    "stable-softmax": softmax_crossentropy_with_logits,
    "Optax": optax.softmax_cross_entropy_with_integer_labels,
}
HIDDEN, CLASSES, STEPS, MICROBATCHES = 64, 10, 4000, 4

images, digits = load_digits(return_X_y=True)
train_images, test_images, train_digits, test_digits = train_test_split(
    jnp.asarray(images / 16, jnp.float32), jnp.asarray(digits), test_size=297, random_state=0, stratify=digits
)


def initial_parameters():
    """Draw the weights of both layers."""
    first, second = jax.random.split(jax.random.key(0))
    return {
        "hidden": jax.random.normal(first, (images.shape[1], HIDDEN)) / images.shape[1] ** 0.5,
        "output": jax.random.normal(second, (HIDDEN, CLASSES)) / HIDDEN**0.5,
    }


def logits_of(parameters, batch):
    """Apply the network, whose weights are kept in float32."""
    hidden, output = (parameters[name].astype("bfloat16") for name in ("hidden", "output"))
    return jax.nn.relu(batch.astype("bfloat16") @ hidden) @ output


def trained(crossentropy):
    """Return the final parameters with a loss function of logits and class ids."""
    optimizer = optax.adam(3e-3)

    def mean_loss(parameters, batch, answers):
        return crossentropy(logits_of(parameters, batch), answers).mean(dtype="float32")

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(parameters, state, microbatches):
        def accumulate(total, microbatch):
            gradient = jax.grad(mean_loss)(parameters, *microbatch)
            return jax.tree.map(jnp.add, total, gradient), None

        zeros = jax.tree.map(jnp.zeros_like, parameters)
        gradient, _ = jax.lax.scan(accumulate, zeros, microbatches)
        gradient = jax.tree.map(lambda total: total / MICROBATCHES, gradient)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(parameters, updates), state

    parameters = initial_parameters()
    state = optimizer.init(parameters)
    microbatches = (
        train_images.reshape(MICROBATCHES, -1, images.shape[1]),
        train_digits.reshape(MICROBATCHES, -1),
    )
    for _ in range(STEPS):
        parameters, state = step(parameters, state, microbatches)
    return parameters


def main():
    """Train with both losses and compare."""
    for name, crossentropy in LOSSES.items():
        parameters = trained(crossentropy)
        logits = logits_of(parameters, train_images)
        losses = crossentropy(logits, train_digits)
        true_loss = softmax_crossentropy_with_logits(logits, train_digits, dtype="float32", reduction="mean")
        accuracy = (logits_of(parameters, test_images).argmax(axis=1) == test_digits).mean()
        print(
            f"{name}: final loss {losses.mean(dtype='float32'):.1e}, in truth {true_loss:.1e}; "
            f"exactly 0 for {(losses == 0).sum()} of {len(losses)} examples; held-out accuracy {accuracy:.4f}"
        )
        assert accuracy > 0.94


if __name__ == "__main__":
    main()
