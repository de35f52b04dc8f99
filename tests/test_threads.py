"""Calls from many threads at once give exactly what they give one after the other."""

import inspect
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from test_fuzz import FUNCTIONS

pytestmark = pytest.mark.covering_on("numpy")

THREADS = 8
# Whose graphs take long to build.
TURNS = {"dask": 1}
EXAMPLES, CLASSES, FEATURES = 30, 7, 4


@pytest.fixture
def eager_switching():
    """Let threads take turns a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def shared_inputs(backend, dtype):
    """Return an array for every required argument; those of NumPy cannot be written to."""
    rng = np.random.default_rng(12)
    shapes = {
        "logits": (EXAMPLES, CLASSES),
        "reference_logits": (EXAMPLES, CLASSES),
        "vector": (EXAMPLES, CLASSES),
        "features": (EXAMPLES, FEATURES),
        "weight": (CLASSES, FEATURES),
        "reference_features": (EXAMPLES, FEATURES),
        "reference_weight": (CLASSES, FEATURES),
    }
    inputs = {name: backend.logits(rng.normal(size=shape) * 20, dtype) for name, shape in shapes.items()}
    inputs["reference_answers"] = backend.array(rng.integers(0, CLASSES, size=EXAMPLES))
    for array in inputs.values():
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    return inputs


def required(function):
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.default is parameter.empty]


def call_all(backend, inputs, first=0):
    """Call every function, beginning with number `first`."""
    order = [*FUNCTIONS[first:], *FUNCTIONS[:first]]
    return {
        function.__name__: backend.call(function, *(inputs[name] for name in required(function))) for function in order
    }


@pytest.mark.thorough_on("jax", "array-api-strict")
@pytest.mark.usefixtures("eager_switching")
def test_calls_at_once_give_what_calls_in_turn_give(backend, dtype):
    inputs = shared_inputs(backend, dtype)
    together = Barrier(THREADS)

    def call_repeatedly(thread):
        together.wait()
        return [
            call_all(backend, inputs, (thread + turn) % len(FUNCTIONS)) for turn in range(TURNS.get(backend.name, 3))
        ]

    # The threads come first, so that what a first call sets up is set up by all of them at once.
    with ThreadPoolExecutor(THREADS) as pool:
        by_thread = list(pool.map(call_repeatedly, range(THREADS)))
    expected = call_all(backend, inputs)
    for results in (results for turns in by_thread for results in turns):
        for name, values in expected.items():
            np.testing.assert_equal(results[name], values, err_msg=name)
