"""Tensors of which each process holds a part."""

import subprocess
import sys
from pathlib import Path


def test_two_processes_find_the_results_of_one():
    script = Path(__file__).with_name("torch_ranks.py")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert run.stdout.endswith("the same\n"), run.stderr
