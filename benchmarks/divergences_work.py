"""Entropies and KL divergences, beside the usual forms of SciPy, PyTorch, Optax and JAX, which cancel."""

from collections.abc import Iterator
from functools import partial

import jax
import numpy as np
import optax
import torch
from scipy import special, stats
from torch.nn import functional

import stable_softmax
from benchmarks.examples import logits_of
from benchmarks.work import Work

SHAPES = ((65536, 10), (16384, 100), (4096, 1000), (128, 50257))
QUICK_SHAPES = ((65536, 10), (4096, 1000))
KL, ENTROPY = stable_softmax.softmax_kl_divergence, stable_softmax.softmax_entropy
#: The ratio to reach by the operation.
TARGETS = {"KL": 2.0, "KL, loss and gradients": 1.5, "entropy": 1.0}


def works(quick: bool) -> Iterator[Work]:
    """Yield all comparisons; the second array differs from the first by a fortieth of their spread."""
    for shape in QUICK_SHAPES if quick else SHAPES:
        z = logits_of(shape, "float32")
        w = (z + 0.1 * np.random.default_rng(1).normal(size=shape)).astype("float32")
        for peer_name, operation, ours, peer in (*_numpy(z, w), *_torch(z, w), *_jax(z, w)):
            yield Work("divergences", operation, shape, "float32", peer_name, TARGETS[operation], ours, peer)


def _numpy(z, w):
    yield (
        "SciPy",
        "KL",
        partial(KL, z, w),
        lambda: stats.entropy(special.softmax(w, -1), special.softmax(z, -1), axis=-1),
    )
    yield "SciPy", "entropy", partial(ENTROPY, z), lambda: stats.entropy(special.softmax(z, -1), axis=-1)


def _torch(z, w):
    z, w = torch.asarray(z), torch.asarray(w)
    given = z.clone().requires_grad_(), w.clone().requires_grad_()

    def usual(z, w):
        logs = torch.log_softmax(z, -1), torch.log_softmax(w, -1)
        return functional.kl_div(*logs, reduction="batchmean", log_target=True)

    def trained(loss):
        for tensor in given:
            tensor.grad = None
        loss(*given).backward()

    mean = partial(KL, reduction="mean")
    yield "PyTorch", "KL", partial(mean, z, w), partial(usual, z, w)
    yield "PyTorch", "KL, loss and gradients", partial(trained, mean), partial(trained, usual)
    yield "PyTorch", "entropy", partial(ENTROPY, z), lambda: torch.distributions.Categorical(logits=z).entropy()


def _jax(z, w):
    given = jax.numpy.asarray(z), jax.numpy.asarray(w)

    def usual(z, w):
        return jax.numpy.mean(optax.losses.kl_divergence(jax.nn.log_softmax(z), jax.nn.softmax(w)))

    def usual_entropy(z, _):
        logs = jax.nn.log_softmax(z)
        return -jax.numpy.sum(jax.numpy.exp(logs) * logs, axis=-1)

    def compiled(function):
        program = jax.jit(function)
        return lambda: jax.block_until_ready(program(*given))

    mean = partial(KL, reduction="mean")
    yield "Optax", "KL", compiled(mean), compiled(usual)
    both = (compiled(jax.value_and_grad(loss, (0, 1))) for loss in (mean, usual))
    yield "Optax", "KL, loss and gradients", *both
    yield "jax.nn", "entropy", compiled(lambda z, _: ENTROPY(z)), compiled(usual_entropy)
