"""Tensors of which each process holds a part, and the example that trains a head on two processes."""

import subprocess
import sys
from pathlib import Path


def test_two_processes_find_the_results_of_one():
    script = Path(__file__).with_name("torch_ranks.py")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert run.stdout.endswith("the same\n"), run.stderr


def test_two_processes_learn_what_one_does():
    """With DTensors, and with statistics that are merged: the example itself compares each loss."""
    script = Path(__file__).parents[2] / "examples" / "tensor_parallel.py"
    run = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert [line.partition(":")[0] for line in run.stdout.splitlines()] == ["DTensors", "statistics"]
