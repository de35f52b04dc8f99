"""JAX on several devices, and on several processes: the example that trains a head whose classes they share."""

import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "vocabulary_parallel.py"
#: Beyond the timeout of the example.
PATIENCE = 30


def test_a_mesh_of_eight_devices_finds_the_results_of_one_with_fewer_collectives_than_optax():
    script = Path(__file__).with_name("jax_mesh.py")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert run.stdout.endswith("the same\n"), run.stderr


def final_loss(processes):
    run = subprocess.run(
        [sys.executable, EXAMPLE, "--processes", str(processes)], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert (
        len(re.findall(rf"process \d of {processes} holds {4096 // processes} of 4096 classes", run.stdout))
        == processes
    )
    return float(re.search(r"(\S+) in the end", run.stdout)[1])


def test_two_processes_learn_what_one_does():
    assert final_loss(2) == pytest.approx(final_loss(1), rel=1e-5)


@pytest.mark.parametrize("victim", [0, 1])
def test_the_death_of_one_process_ends_the_other_with_an_error(victim):
    """Instead of letting it wait for ever; the first one coordinates."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        command = [sys.executable, str(EXAMPLE), "--coordinator", f"localhost:{free.getsockname()[1]}"]
    command += ["--steps", "1000000", "--pause", "0.05"]
    running = [
        subprocess.Popen([*command, "--process", str(i)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for i in range(2)
    ]
    for line in running[0].stdout:
        if line.startswith("step 0"):
            break
    running[victim].kill()
    started = time.monotonic()
    output, _ = running[1 - victim].communicate(timeout=PATIENCE)
    running[victim].communicate()
    assert running[1 - victim].returncode != 0
    assert time.monotonic() - started < PATIENCE
    assert "detected fatal errors" in output or "stopped sending heartbeats" in output
