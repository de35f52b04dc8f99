"""`python -m benchmarks.confident`: train on handwritten digits until the losses of confident answers are exactly 0.

A two-layer network with Adam in full batches, in float32 and with bfloat16 products of float32 weights. Nothing but the
loss differs between the runs of one dtype and seed.
"""

import math
import statistics
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer
from rich.console import Console
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from benchmarks.progress import STATUS, tell
from benchmarks.tables import Row, Section, layout, number, text
from stable_softmax import softmax_crossentropy_with_logits

HIDDEN, CLASSES, LEARNING_RATE = 64, 10, 3e-3
usual = optax.softmax_cross_entropy_with_integer_labels
# The dtype of the products, and the loss of the logits.
FORMS: dict[str, tuple[str, Callable[..., Any]]] = {
    "usual float32": ("float32", usual),
    "ours float32": ("float32", softmax_crossentropy_with_logits),
    "usual bfloat16": ("bfloat16", usual),
    "ours bfloat16": ("bfloat16", softmax_crossentropy_with_logits),
    "usual, cast to float32": (
        "bfloat16",
        lambda logits, labels: usual(logits.astype("float32"), labels),
    ),
}
COLUMNS = {
    "form": text("form"),
    "train loss": number("train loss", ".1e"),
    "in float64": number("exact train loss", ".1e"),
    "rows of loss 0": number("zero", ".3f"),
    "all 0 first at": lambda row: "-" if math.isinf(row["all zero"]) else f"{row['all zero']:.0f}",
    "smallest lead": number("lead", ".2f"),
    "weights": number("weights", ".0f"),
    "test loss": number("test loss", ".3f"),
    "test accuracy": number("test accuracy", ".4f"),
    "of the seeds": lambda row: "{:.4f}-{:.4f}".format(*row["accuracies"]),
}


class Examples(NamedTuple):
    """Images in [0, 1], and what they show."""

    images: np.ndarray
    digits: np.ndarray


def main(
    steps: Annotated[int, typer.Option(min=1, help="Steps of each run.")] = 5000,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each form.")] = 3,
) -> None:
    """Print where the runs end, in medians of the seeds, after training with each form."""
    rows = []
    with STATUS:
        for form in FORMS:
            tell(f"confident: {form}")
            rows.append(_median(form, [trained(form, seed, steps) for seed in range(seeds)]))
    title = f"Handwritten digits, {steps} steps, medians of {seeds} seeds"
    Console(width=160).print(layout(Section(title, COLUMNS, rows)))


def trained(form: str, seed: int, steps: int) -> Row:
    """Return where a run ends."""
    train, test = examples_of(seed)
    rng = np.random.default_rng(seed)
    shapes = pairwise((train.images.shape[1], HIDDEN, CLASSES))
    parameters = [rng.normal(0, (2 / shape[0]) ** 0.5, shape).astype("float32") for shape in shapes]
    parameters, zeros = _trainer(form, train, steps)(parameters)
    dtype, crossentropy = FORMS[form]
    logits = logits_of(parameters, train.images, dtype)
    answered = logits_of(parameters, test.images, dtype)
    losses = crossentropy(logits, train.digits)
    return {
        "train loss": float(losses.mean(dtype="float32")),
        "exact train loss": _exact_mean(logits, train.digits),
        "zero": float((losses == 0).mean()),
        "all zero": float(zeros.argmax()) if zeros.max() == 1 else math.inf,
        "lead": float(_leads(logits, train.digits).min()),
        "weights": float(optax.global_norm(parameters)),
        "test loss": _exact_mean(answered, test.digits),
        "test accuracy": float((answered.argmax(axis=1) == test.digits).mean()),
    }


def examples_of(seed: int) -> tuple[Examples, Examples]:
    """Split scikit-learn's digits."""
    images, digits = load_digits(return_X_y=True)
    scaled = (images / 16).astype("float32")
    parts = train_test_split(scaled, digits.astype("int32"), test_size=0.3, random_state=seed, stratify=digits)
    train_images, test_images, train_digits, test_digits = parts
    return Examples(train_images, train_digits), Examples(test_images, test_digits)


def logits_of(parameters: list[Any], images: Any, dtype: str) -> jax.Array:
    """Apply the network, with its products in the dtype."""
    first, second = (weight.astype(dtype) for weight in parameters)
    return jax.nn.relu(images.astype(dtype) @ first) @ second


def _trainer(form: str, train: Examples, steps: int) -> Callable[..., Any]:
    """Return a function of the initial weights: the final ones, and the share of losses that are 0 at each step."""
    dtype, crossentropy = FORMS[form]
    optimizer = optax.adam(LEARNING_RATE)

    def mean_loss(parameters):
        losses = crossentropy(logits_of(parameters, train.images, dtype), train.digits)
        return losses.mean(dtype="float32"), (losses == 0).mean()

    def step(state, _):
        parameters, moments = state
        gradient, zero = jax.grad(mean_loss, has_aux=True)(parameters)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(parameters, updates), moments), zero

    def run(parameters):
        (parameters, _), zeros = jax.lax.scan(step, (parameters, optimizer.init(parameters)), length=steps)
        return parameters, zeros

    return jax.jit(run)


def _exact_mean(logits: jax.Array, digits: np.ndarray) -> float:
    return float(softmax_crossentropy_with_logits(np.asarray(logits, "float64"), digits, reduction="mean"))


def _leads(logits: jax.Array, digits: np.ndarray) -> jax.Array:
    """Return by how much the right class's logit exceeds the largest other."""
    right = jax.nn.one_hot(digits, CLASSES, dtype=bool)
    values = logits.astype("float32")
    return jnp.max(values, axis=1, where=right, initial=-jnp.inf) - jnp.max(
        values, axis=1, where=~right, initial=-jnp.inf
    )


def _median(form: str, runs: list[Row]) -> Row:
    accuracies = [run["test accuracy"] for run in runs]
    row = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return row | {"form": form, "accuracies": (min(accuracies), max(accuracies))}


if __name__ == "__main__":
    typer.run(main)
