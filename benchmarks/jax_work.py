"""JAX: against jax.nn and Optax, under jit and call by call."""

from collections.abc import Iterator
from functools import partial

import jax
import optax

import stable_softmax
from benchmarks.forms import without_labels
from benchmarks.work import Work

SHAPES = ((65536, 10), (16384, 100), (4096, 1000), (512, 50257))
QUICK_SHAPES = ((65536, 10), (4096, 1000))
EAGER_SHAPES = ((50, 10), (1024, 100), (4096, 1000))

loss = partial(stable_softmax.softmax_crossentropy_with_logits, reduction="mean")


def peer_loss(logits, class_ids):
    """Return Optax's mean loss."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, class_ids).mean()


# Operation, peer's name, our function, the peer's, the ratio to reach under jit.
PAIRS = (
    ("softmax", "jax.nn", without_labels(stable_softmax.softmax), without_labels(jax.nn.softmax), 1.0),
    ("log_softmax", "jax.nn", without_labels(stable_softmax.log_softmax), without_labels(jax.nn.log_softmax), 1.0),
    ("loss", "Optax", loss, peer_loss, 1.0),
    ("value and gradient", "Optax", jax.value_and_grad(loss), jax.value_and_grad(peer_loss), 1.1),
)


def works(quick: bool) -> Iterator[Work]:
    """Yield all comparisons."""
    for dtype in ("float32", "bfloat16"):
        for shape in QUICK_SHAPES if quick else SHAPES:
            for operation, peer_name, ours, peer, target in PAIRS:
                yield _work("JAX under jit", operation, shape, dtype, peer_name, target, jax.jit(ours), jax.jit(peer))
    for shape in EAGER_SHAPES[::2] if quick else EAGER_SHAPES:
        for operation, peer_name, ours, peer, _ in PAIRS:
            yield _work("JAX, eager calls", operation, shape, "float32", peer_name, 1.0, ours, peer)


def _work(table, operation, shape, dtype, peer_name, target, ours, peer):
    logits = (4 * jax.random.normal(jax.random.key(0), shape)).astype(dtype)
    class_ids = jax.random.randint(jax.random.key(1), shape[:1], 0, shape[1])

    def ready(function):
        return lambda: jax.block_until_ready(function(logits, class_ids))

    return Work(table, operation, shape, dtype, peer_name, target, ready(ours), ready(peer))
