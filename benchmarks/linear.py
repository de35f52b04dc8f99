"""Loss, entropy and divergence of projected features with their gradients, beside the peers': time and peak memory.

All run on two threads.
"""

import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

import stable_softmax
from benchmarks import fresh
from benchmarks.forms import notebook
from benchmarks.memory import resident
from benchmarks.progress import tell
from benchmarks.tables import Row, Section, number, text

THREADS = 2
# Examples, features and classes. All logits take 512 MiB and 2 GiB, and 128 MiB.
SHAPES = ((4096, 256, 32768), (8192, 256, 65536))
QUICK_SHAPES = ((4096, 128, 8192),)
# Enough for imports, and to start the threads.
FIRST_SHAPE = (64, 32, 1024)
# The forms whose package may be missing: it has the same name.
OPTIONAL = ("jax_cce",)
COLUMNS = {
    "library": text("library"),
    "form": text("form"),
    "threads": lambda row: row.get("threads", "-"),
    "time, s": number("time", ".3f"),
    "time / ours": number("time ratio"),
    "quartiles": lambda row: f"{row['low']:.2f}-{row['high']:.2f}" if "low" in row else "-",
    "peak, MiB": number("peak", ".0f"),
    "peak / ours": number("peak ratio"),
    "planned": number("planned", ".0f"),
    "deviation": number("deviation", ".1e"),
}

Call = Callable[[], tuple[Any, tuple[Any, ...]]]
Shape = tuple[int, ...]


def sections(quick: bool) -> Iterator[Section]:
    """Yield a table for each objective and shape.

    Peaks are beyond the arguments, gradients included; what JAX planned, in MiB, is beyond the gradients, too. The
    deviation is the largest of the weight's gradient from one in float64, over the largest entry of that, at the quick
    table's shape, for the loss. The notebook, too, works on all logits. The reference of a divergence is not trained.
    """
    deviations = {library: _measured("deviations", "loss", library, QUICK_SHAPES[0]) for library in FORMS["loss"]}
    for objective, forms in FORMS.items():
        for shape in QUICK_SHAPES if quick else SHAPES[: None if objective == "loss" else 1]:
            rows = [row for library in forms for row in _rows(objective, library, shape, 2 if quick else 40)]
            for row in rows:
                if objective == "loss" and "time" in row and row["form"] != "summary, ours":  # which adds entropies
                    row["deviation"] = deviations[row["library"]][row["form"]]
            lengths = "{} examples, {} features, {} classes".format(*shape)
            yield Section(f"{objective} and gradients of features and weight, float32, {lengths}", COLUMNS, rows)


def _rows(objective: str, library: str, shape: Shape, seconds: float) -> Iterator[Row]:
    times = _measured("times", objective, library, shape, str(seconds))
    ours = _measured("peak", objective, library, shape, "ours")
    for form in FORMS[objective][library]:
        row: Row = {"library": library, "form": form, "shape": shape}
        if form in times:
            peak = ours if form == "ours" else _measured("peak", objective, library, shape, form)
            row |= peak | {"peak ratio": peak["peak"] / ours["peak"]}
            row |= _compared(times[form], times["ours"])
        yield row


def _compared(times: list[float], ours: list[float]) -> Row:
    """Return the median, its ratio to ours, and the quartiles of the ratios of neighbouring runs."""
    median = statistics.median(times)
    low, _, high = statistics.quantiles([a / b for a, b in zip(times, ours, strict=True)], n=4)
    return {"time": median, "time ratio": median / statistics.median(ours), "low": low, "high": high}


def _measured(measure: str, objective: str, library: str, shape: Shape, *options: str) -> dict[str, Any]:
    """Return what a fresh process measures."""
    tell(f"linear: {measure} of {objective}, {library} {shape} {' '.join(options)}")
    lengths = ",".join(map(str, shape))
    return json.loads(fresh.run("benchmarks.linear", measure, objective, library, lengths, *options).stdout)


def _times(objective: str, library: str, shape: Shape, seconds: str) -> dict[str, list[float]]:
    """Return the seconds of each form, in turn for about so many seconds, and at least three turns."""
    calls = {form: _prepared(objective, library, form, shape)[0] for form in _installed(objective, library)}
    times: dict[str, list[float]] = {form: [] for form in calls}
    end = time.perf_counter() + float(seconds)
    while len(times["ours"]) < 3 or time.perf_counter() < end:
        for form, call in calls.items():
            start = time.perf_counter()
            call()
            times[form].append(time.perf_counter() - start)
    return times


def _peak(objective: str, library: str, shape: Shape, form: str) -> dict[str, float]:
    """Return the peak above what was there before the call, in MiB, and what is known before it."""
    call, known = _prepared(objective, library, form, shape)
    # Linux: sets the peak to what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    call()
    return known | {"peak": (resident("VmHWM") - before) / 2**20}


def _deviations(objective: str, library: str, shape: Shape) -> dict[str, float]:
    """Return how far each form's gradient of the weight is from that of the notebook in float64, at most."""
    features, weight, class_ids, *_ = _examples(shape)
    _, (_, expected) = _notebook(features.astype("float64"), weight.astype("float64"), class_ids)
    scale = np.max(np.abs(expected))
    deviations = {}
    for form in _installed(objective, library):
        _, (_, gradient, *_) = _prepared(objective, library, form, shape)[0]()
        deviations[form] = float(np.max(np.abs(np.asarray(gradient) - expected)) / scale)
    return deviations


def _installed(objective: str, library: str) -> list[str]:
    return [form for form in FORMS[objective][library] if form not in OPTIONAL or find_spec(form)]


def _prepared(objective: str, library: str, form: str, shape: Shape) -> tuple[Call, dict[str, float]]:
    """Return a call of the form, ready to be measured, and what is known before it."""
    prepare, function, arguments = PREPARE[library], FORMS[objective][library][form], ARGUMENTS[objective]
    first, arrays = ([_examples(lengths)[i] for i in arguments] for lengths in (FIRST_SHAPE, shape))
    prepare(function, *first)[0]()
    return prepare(function, *arrays)


def _examples(shape: Shape) -> tuple[Any, ...]:
    """Return features and weight, uniform class ids, and features and weight of a reference, which differ by 1 %.

    Logits have a standard deviation of 4 nats.
    """
    examples, features, classes = shape
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((classes, features), dtype="float32")
    weight *= 4 / features**0.5
    rows = rng.standard_normal((examples, features), dtype="float32")
    class_ids = rng.integers(classes, size=examples)
    reference = [array + 0.01 * array[::-1] for array in (rows, weight)]
    return rows, weight, class_ids, *reference


def _unchanged(function, *arrays):
    return partial(function, *arrays), {}


def _with_backward(loss, *arrays):
    torch = importlib.import_module("torch")
    features, weight, *others = map(torch.from_numpy, arrays)

    def run():
        variables = [tensor.detach().requires_grad_() for tensor in (features, weight)]
        value = loss(*variables, *others)
        value.backward()
        return value.detach(), tuple(variable.grad for variable in variables)

    return run, {}


def _compiled(loss, *arrays):
    jax = importlib.import_module("jax")
    arrays = [jax.numpy.asarray(array) for array in arrays]
    program = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*arrays).compile()
    planned = program.memory_analysis().temp_size_in_bytes / 2**20
    return lambda: jax.block_until_ready(program(*arrays)), {"planned": planned}


def _full(features, weight, class_ids):
    return stable_softmax.softmax_crossentropy_with_logits(features @ weight.T, class_ids, reduction="mean")


def _optax(features, weight, class_ids):
    optax = importlib.import_module("optax")
    return optax.softmax_cross_entropy_with_integer_labels(features @ weight.T, class_ids).mean()


def _jax_cce(features, weight, class_ids):
    return importlib.import_module("jax_cce").linear_cross_entropy(features, weight, class_ids)


def _torch_full(features, weight, class_ids):
    functional = importlib.import_module("torch.nn.functional")
    return functional.cross_entropy(functional.linear(features, weight), class_ids)


def _torch_chunked(features, weight, class_ids):
    nn = importlib.import_module("torch.nn")
    return nn.functional.linear_cross_entropy(features, weight, class_ids, options=nn.LinearCrossEntropyOptions())


def _full_divergence(features, weight, reference_features, reference_weight):
    logits, reference_logits = features @ weight.T, reference_features @ reference_weight.T
    return stable_softmax.softmax_kl_divergence(logits, reference_logits, reduction="mean")


def _optax_divergence(features, weight, reference_features, reference_weight):
    optax, jax = importlib.import_module("optax"), importlib.import_module("jax")
    log_p, log_q = (jax.nn.log_softmax(z) for z in (features @ weight.T, reference_features @ reference_weight.T))
    return optax.losses.kl_divergence_with_log_targets(log_p, log_q).mean()


def _torch_divergence(features, weight, reference_features, reference_weight):
    functional = importlib.import_module("torch.nn.functional")
    logits, reference_logits = features @ weight.T, reference_features @ reference_weight.T
    log_p, log_q = (functional.log_softmax(z, -1) for z in (logits, reference_logits))
    return functional.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def _jax_entropy(features, weight):
    logs = importlib.import_module("jax").nn.log_softmax(features @ weight.T)
    return -(importlib.import_module("jax").numpy.exp(logs) * logs).sum(axis=-1).mean()


def _torch_entropy(features, weight):
    distribution = importlib.import_module("torch").distributions.Categorical
    return distribution(logits=features @ weight.T, validate_args=False).entropy().mean()


def _summary(features, weight, class_ids):
    """Return a policy's loss, of the log-probabilities and the entropies of all examples."""
    summary = stable_softmax.linear_softmax_summary(features, weight, class_ids)
    return (summary.loss - 0.01 * summary.entropy).mean()


def _notebook(features, weight, class_ids):
    value, gradient = notebook.FORMS["value and gradient"](features @ weight.T, class_ids)
    return value, (gradient @ weight, gradient.T @ features)


# What each library's functions return: the loss; but those of NumPy also the gradients.
FORMS: dict[str, dict[str, dict[str, Callable[..., Any]]]] = {
    "loss": {
        "JAX": {
            "ours": stable_softmax.linear_softmax_crossentropy,
            "all logits, ours": _full,
            "all logits, Optax": _optax,
            "jax_cce": _jax_cce,
            "summary, ours": _summary,
        },
        "PyTorch": {
            "ours": stable_softmax.linear_softmax_crossentropy,
            "all logits": _torch_full,
            "chunked": _torch_chunked,
            "summary, ours": _summary,
        },
        "NumPy": {
            "ours": stable_softmax.value_and_grad_linear_softmax_crossentropy,
            "notebook": _notebook,
        },
    },
    "KL divergence": {
        "JAX": {
            "ours": stable_softmax.linear_softmax_kl_divergence,
            "all logits, ours": _full_divergence,
            "all logits, Optax": _optax_divergence,
        },
        "PyTorch": {
            "ours": stable_softmax.linear_softmax_kl_divergence,
            "all logits, ours": _full_divergence,
            "all logits, kl_div": _torch_divergence,
        },
    },
    "entropy": {
        "JAX": {"ours": stable_softmax.linear_softmax_entropy, "all logits": _jax_entropy},
        "PyTorch": {"ours": stable_softmax.linear_softmax_entropy, "all logits, Categorical": _torch_entropy},
    },
}
# Which of `_examples` the functions of an objective get.
ARGUMENTS = {"loss": (0, 1, 2), "KL divergence": (0, 1, 3, 4), "entropy": (0, 1)}
PREPARE = {"JAX": _compiled, "PyTorch": _with_backward, "NumPy": _unchanged}
MEASURES = {"times": _times, "peak": _peak, "deviations": _deviations}


def _set_threads(library: str) -> str:
    """Let the process have two threads, and return what says so."""
    # XLA starts a thread for each core that the process may use, and has no other setting.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    if library == "JAX":
        return f"XLA {len(os.sched_getaffinity(0))}"
    if library == "PyTorch":
        torch = importlib.import_module("torch")
        torch.set_num_threads(THREADS)
        return f"PyTorch {torch.get_num_threads()}"
    threadpool_limits(THREADS)
    stable_softmax.set_workers(THREADS)
    pools = {f"{pool['internal_api']} {pool['num_threads']}" for pool in threadpool_info()}
    return ", ".join([*sorted(pools), f"workers {stable_softmax.get_workers()}"])


if __name__ == "__main__":
    measure, objective, library, lengths, *options = sys.argv[1:]
    threads = _set_threads(library)
    measured = MEASURES[measure](objective, library, tuple(map(int, lengths.split(","))), *options)
    print(json.dumps(measured | {"threads": threads}))
