"""A head whose classes are split over the processes of a cluster: JAX trains it with our loss of projected features.

On one machine, `python examples/vocabulary_parallel.py` starts two processes on the loopback interface, each with half
of the classes. On a cluster, start it once on every machine, with the address of the first and a number for each:

    python examples/vocabulary_parallel.py --coordinator first-machine:1234 --processes 8 --process 3

Where JAX finds all three by itself, as under Slurm, `--coordinator auto` is enough.
"""

import argparse
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from stable_softmax import linear_softmax_crossentropy

EXAMPLES, FEATURES, CLASSES = 256, 32, 4096
LEARNING_RATE = 2.0
# After so many seconds without a sign of life of one process, the others end.
TIMEOUT = 10


def arguments():
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coordinator", help="address and port of the first process, or auto")
    parser.add_argument("--processes", type=int, default=2, help="how many there are")
    parser.add_argument("--process", type=int, help="the number of this one, from 0")
    parser.add_argument("--steps", type=int, default=30, help="how many to train for")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds to wait after each step")
    return parser.parse_args()


def start_all(options):
    """Start all processes on this machine, and return the exit status of the first that failed, or 0."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    common = [sys.executable, __file__, "--coordinator", coordinator, "--processes", str(options.processes)]
    common += ["--steps", str(options.steps), "--pause", str(options.pause)]
    running = [subprocess.Popen([*common, "--process", str(i)]) for i in range(options.processes)]
    return next((status for status in [process.wait() for process in running] if status), 0)


def connect(options):
    """Join the other processes, and return a mesh of all devices."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # on GPUs and TPUs, collectives are there
    place = {}
    if options.coordinator != "auto":
        place = {"coordinator_address": options.coordinator, "num_processes": options.processes}
        place["process_id"] = options.process
    jax.distributed.initialize(**place, initialization_timeout=60, heartbeat_timeout_seconds=TIMEOUT)
    return jax.make_mesh((jax.device_count(),), ("model",), axis_types=(AxisType.Auto,))


def placed(mesh, array, *axes):
    """Return an array of which each process gives the part of its own devices: all have made the whole here."""
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


@jax.jit
def step(weight, features, reference_answers):
    """Return the weight after a step down the gradient, and the loss before it."""
    loss, gradient = jax.value_and_grad(linear_softmax_crossentropy, 1)(features, weight, reference_answers)
    return weight - LEARNING_RATE * gradient, loss


def train(options):
    """Learn the classes of random features."""
    mesh, random = connect(options), np.random.default_rng(0)
    features = random.normal(size=(EXAMPLES, FEATURES)).astype(np.float32)
    features, reference_answers = placed(mesh, features), placed(mesh, random.integers(0, CLASSES, size=EXAMPLES))
    weight = placed(mesh, np.zeros((CLASSES, FEATURES), np.float32), "model")
    own = sum(shard.data.shape[0] for shard in weight.addressable_shards)
    print(f"process {jax.process_index()} of {jax.process_count()} holds {own} of {CLASSES} classes", flush=True)
    for number in range(options.steps):
        weight, loss = step(weight, features, reference_answers)
        if jax.process_index() == 0 and number % 10 == 0:
            print(f"step {number}: loss {loss:.6f}", flush=True)
        time.sleep(options.pause)
    if jax.process_index() == 0:
        print(f"loss {jnp.log(CLASSES):.6f} of guesses, {loss:.6f} in the end", flush=True)
    assert loss < jnp.log(CLASSES) / 2


def main():
    """Train in this process, or start those that do."""
    options = arguments()
    if options.coordinator is None:
        sys.exit(start_all(options))
    train(options)


if __name__ == "__main__":
    main()
