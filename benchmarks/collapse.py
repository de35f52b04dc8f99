"""`python -m benchmarks.collapse`: train where the usual float32 loss comes to be exactly 0, with it and with others.

The task is that of Figure 2 in Prieto et al., "Grokking at the Edge of Numerical Stability" (2025, arXiv 2501.04697):
addition modulo 113 by a network of three layers without biases, full batches, AdamW without weight decay, which is
Adam. Nothing but the loss differs between the runs of one seed.
"""

import json
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer
from rich.console import Console

from benchmarks.addition import (
    DECAYS,
    EPSILON,
    INTERVAL,
    LEARNING_RATE,
    MODULUS,
    Examples,
    Parameters,
    examples_of,
    initial_parameters,
)
from benchmarks.progress import STATUS, tell
from benchmarks.tables import Section, layout, number, text
from stable_softmax import softmax_crossentropy_with_logits
from stable_softmax.command_line.output import write

OPTIMIZER = optax.adam(LEARNING_RATE, *DECAYS, EPSILON)
COLUMNS = {
    "form": text("loss"),
    "seed": text("seed"),
    "train loss": number("train loss", ".1e"),
    "rows of loss 0": number("zero", ".3f"),
    "train accuracy": number("train accuracy", ".4f"),
    "test accuracy": number("test accuracy", ".4f"),
    "largest gradient": number("gradient", ".1e"),
    "largest step": number("update", ".1f"),
    "CPU seconds": number("seconds", ".0f"),
}

Run = dict[str, Any]


class Loss(StrEnum):
    """The losses, in the order in which they are run."""

    USUAL_32 = "usual float32"
    OURS_32 = "ours float32"
    USUAL_64 = "usual float64"
    STABLEMAX_32 = "StableMax float32"
    USUAL_TORCH = "usual float32, PyTorch"
    OURS_TORCH = "ours float32, PyTorch"


def stablemax(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the crossentropy of Prieto et al., whose numbers grow linearly and vanish like 1/x, instead of exp."""
    # What the other branch of a where divides by must not be 0, or the derivative is NaN.
    weights = jnp.where(logits >= 0, logits + 1, 1 / (1 - jnp.minimum(logits, 0)))
    return jnp.log(weights.sum(axis=1)) - jnp.log(weights[jnp.arange(labels.size), labels])


def usual_64(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the usual loss of float32 logits, computed in float64; so is its gradient, and then rounded."""
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype("float64"), labels)


FUNCTIONS: dict[Loss, Callable[..., Any]] = {
    Loss.USUAL_32: optax.softmax_cross_entropy_with_integer_labels,
    Loss.OURS_32: softmax_crossentropy_with_logits,
    Loss.USUAL_64: usual_64,
    Loss.STABLEMAX_32: stablemax,
}
IN_TORCH = (Loss.USUAL_TORCH, Loss.OURS_TORCH)


def main(
    out: Annotated[Path, typer.Option(help="Keep the runs in this file; those that it has are not run again.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of each run.")] = 6000,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each loss.")] = 3,
    fraction: Annotated[float, typer.Option(min=0.01, max=0.99, help="Share of all pairs to train on.")] = 0.7,
    scale: Annotated[float, typer.Option(help="Differentiate the loss times this, which Adam undoes.")] = 1.0,
    only: Annotated[
        list[Loss] | None, typer.Option(help="These losses; repeatable. The first three if not given.")
    ] = None,
    picture: Annotated[Path | None, typer.Option("--plot", help="Draw the curves to this file.")] = None,
) -> None:
    """Train with each loss from each seed, and print where the runs end."""
    runs = json.loads(out.read_text()) if out.exists() else []
    settings = {"steps": steps, "fraction": fraction, "scale": scale}
    asked = [{"loss": loss, "seed": seed} | settings for seed in range(seeds) for loss in only or tuple(Loss)[:3]]
    with STATUS:
        for run in asked:
            if not _found(run, runs):
                runs.append(run | trained(**run))
                write(out, f"{json.dumps(runs)}\n".encode())  # at once: what is broken off leaves the earlier runs
    chosen = [_found(run, runs) for run in asked]
    rows = [run | {name: values[-1] for name, values in run["records"].items()} for run in chosen]
    title = f"Addition modulo {MODULUS}, {fraction:g} of all pairs, after {steps} steps"
    Console(width=140).print(layout(Section(title, COLUMNS, rows)))
    if picture:
        # Here, so that nothing else needs matplotlib.
        from benchmarks import collapse_plot

        collapse_plot.draw(chosen, picture)


def trained(loss: Loss, seed: int, steps: int, fraction: float, scale: float) -> Run:
    """Return what was recorded every so many steps, and the CPU seconds that it took."""
    rng = np.random.default_rng(seed)
    train, test = examples_of(fraction, rng)
    given = loss, initial_parameters(rng), train, test, steps, scale
    start = time.process_time()
    records = []
    for record in _records_in_torch(*given) if loss in IN_TORCH else _records(*given):
        records.append(record)
        tell(f"{loss}, seed {seed}: step {record['step']}, test accuracy {record['test accuracy']:.3f}")
    columns = {name: [float(record[name]) for record in records] for name in records[0]}
    return {"seconds": time.process_time() - start, "records": columns}


def _records(
    loss: Loss, parameters: Parameters, train: Examples, test: Examples, steps: int, scale: float
) -> Iterator[dict[str, Any]]:
    # Around all of the run, as JAX compiles for one setting. Parameters, logits and Adam's state stay float32.
    with jax.enable_x64(loss is Loss.USUAL_64):
        advance, evaluate = _functions(FUNCTIONS[loss], train, test, scale)
        state = parameters, OPTIMIZER.init(parameters)
        for step in range(0, steps, INTERVAL):
            state, figures = advance(state, min(INTERVAL, steps - step))
            yield {"step": min(step + INTERVAL, steps)} | figures | evaluate(state[0])


def _records_in_torch(loss: Loss, *given: Any) -> Iterator[dict[str, Any]]:
    # Here, so that nothing else needs PyTorch.
    from benchmarks import collapse_torch

    function = softmax_crossentropy_with_logits if loss is Loss.OURS_TORCH else collapse_torch.usual
    return collapse_torch.records(function, *given)


def logits_of(parameters: Parameters, examples: Examples) -> jax.Array:
    """Apply the network.

    The first layer's product with a pair of one-hot vectors is the sum of two of its rows.
    """
    first, second, third = parameters
    hidden = jax.nn.relu(first[examples.left] + first[MODULUS + examples.right])
    return jax.nn.relu(hidden @ second) @ third


def _functions(crossentropy: Callable[..., Any], train: Examples, test: Examples, scale: float) -> tuple[Any, Any]:
    """Return compiled functions: one takes some steps, the other looks at the parameters."""

    def mean_loss(parameters):
        return scale * crossentropy(logits_of(parameters, train), train.sums).mean().astype("float32")

    def step(state, _):
        parameters, moments = state
        gradient = jax.grad(mean_loss)(parameters)
        updates, moments = OPTIMIZER.update(gradient, moments)
        largest = {"gradient": _largest(gradient) / scale, "update": _largest(updates) / LEARNING_RATE}
        return (optax.apply_updates(parameters, updates), moments), largest

    def advance(state, steps):
        state, largest = jax.lax.scan(step, state, length=steps)
        return state, {"gradient": largest["gradient"][-1], "update": largest["update"].max()}

    def evaluate(parameters):
        logits = logits_of(parameters, train)
        losses = crossentropy(logits, train.sums)
        usual = optax.softmax_cross_entropy_with_integer_labels(logits, train.sums)
        return {
            "train loss": losses.mean(),
            "zero": (losses == 0).mean(),
            "collapsed": (usual == 0).mean(),
            "train accuracy": (logits.argmax(axis=1) == train.sums).mean(),
            "test accuracy": (logits_of(parameters, test).argmax(axis=1) == test.sums).mean(),
        }

    return jax.jit(advance, static_argnums=1, donate_argnums=0), jax.jit(evaluate)


def _largest(arrays: Parameters) -> jax.Array:
    return jnp.max(jnp.stack([jnp.abs(array).max() for array in arrays]))


def _found(run: Run, runs: list[Run]) -> Run | None:
    """Return the run of these settings, if it is there."""
    return next((other for other in runs if run.items() <= other.items()), None)


if __name__ == "__main__":
    typer.run(main)
