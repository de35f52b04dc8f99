"""Logits and weights on a mesh of 2 x 4 devices: the results of one, and what crosses between devices.

`python jax_mesh.py` lists the collectives of each program, ours and Optax's, and raises where something differs.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from stable_softmax import linear_softmax_crossentropy, softmax_crossentropy_with_logits

EXAMPLES, FEATURES, CLASSES = 64, 8, 512
KINDS = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
SPLITS = {"examples": (P("data"), P()), "classes": (P(), P("model")), "both": (P("data"), P("model"))}


def ours(logits, class_ids):
    return softmax_crossentropy_with_logits(logits, class_ids, reduction="mean")


def one_hot(logits, class_ids):
    return jnp.mean(optax.softmax_cross_entropy(logits, jax.nn.one_hot(class_ids, logits.shape[1])))


def collectives(compiled):
    """Return what crosses between devices: kind and number of elements, tuples taken apart."""
    found = []
    for shapes, kind in re.findall(rf"= (.+?) ({KINDS})(?:-start)?\(", compiled.as_text()):
        sizes = [
            int(np.prod([int(n) for n in dims.split(",") if n])) for dims in re.findall(r"\w+\[([\d,]*)\]", shapes)
        ]
        found.append((kind, sizes))
    return found


def run(mesh, function, *arrays_and_specs):
    """Return the results of a jitted function of arrays that are placed on a mesh, and its collectives."""
    with jax.set_mesh(mesh):
        placed = [jax.device_put(array, NamedSharding(mesh, spec)) for array, spec in arrays_and_specs]
        compiled = jax.jit(function).lower(*placed).compile()
        return compiled(*placed), collectives(compiled)


def assert_same(given, expected):
    for result, same in zip(jax.tree.leaves(given), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(result, same, rtol=1e-4, atol=1e-7)


def check_logits(mesh, name, rows, classes):
    rng = np.random.default_rng(0)
    logits, class_ids = rng.normal(size=(EXAMPLES, CLASSES)).astype(np.float32), rng.integers(0, CLASSES, size=EXAMPLES)
    logits[np.arange(0, EXAMPLES, 2), class_ids[::2]] += 40
    spec = P(*(rows or [None]), *(classes or [None]))
    for of, order in (("loss", lambda f: f), ("loss and gradient", jax.value_and_grad)):
        arguments = (logits, spec), (class_ids.astype(np.int32), P(*rows))
        result, found = run(mesh, order(ours), *arguments)
        assert_same(result, order(ours)(logits, class_ids))
        _, of_peer = run(mesh, order(one_hot), *arguments)
        print(f"{name}, {of}: ours {found}, Optax {of_peer}")
        assert len(found) <= len(of_peer)
        assert all(kind == "all-reduce" and max(sizes) <= EXAMPLES for kind, sizes in found)


def check_projection(mesh, name, rows, classes):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(EXAMPLES, FEATURES)).astype(np.float32)
    weight = rng.normal(size=(CLASSES, FEATURES)).astype(np.float32)
    class_ids = rng.integers(0, CLASSES, size=EXAMPLES).astype(np.int32)
    function = jax.value_and_grad(partial(linear_softmax_crossentropy, block_size=16), (0, 1))
    result, found = run(mesh, function, (features, P(*rows)), (weight, P(*classes)), (class_ids, P(*rows)))
    assert_same(result, function(features, weight, class_ids))
    print(f"{name}, projected features: {found}")
    # The gradient of the features is a sum over classes, that of the weight one over examples.
    largest = max(EXAMPLES * FEATURES, CLASSES * FEATURES if rows else 0)
    assert all(kind == "all-reduce" and max(sizes) <= largest for kind, sizes in found)


def main():
    jax.config.update("jax_num_cpu_devices", 8)
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(kind,) * 2)
        for split, (rows, classes) in SPLITS.items():
            check_logits(mesh, f"{kind.name}, {split}", rows, classes)
            check_projection(mesh, f"{kind.name}, {split}", rows, classes)
    print("the same")


if __name__ == "__main__":
    main()
