"""Random examples with random options of the loss: class ids or probabilities, `where`, weights and the rest."""

from functools import cache
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pytest

from stable_softmax.reference.bounds import representable
from stable_softmax.reference.rows import LEADS

NAMES = ("where", "class_weights", "example_weights", "label_smoothing", "z_loss", "ignore_index", "probabilities")
#: All at once: to ignore an example takes class ids.
ALL_WITH_IDS = tuple(name for name in NAMES if name != "probabilities")
ALL_WITH_PROBABILITIES = tuple(name for name in NAMES if name != "ignore_index")
#: Each option alone, all pairs, and all at once.
COMBINATIONS = [
    names
    for names in [*combinations(NAMES, 1), *combinations(NAMES, 2), ALL_WITH_IDS, ALL_WITH_PROBABILITIES]
    if not {"ignore_index", "probabilities"} <= set(names)
]
#: The same for tests to run with. JAX compiles each pair.
EACH_COMBINATION = [
    pytest.param(names, id="+".join(names), marks=[pytest.mark.thorough_on("jax")] if len(names) == 2 else [])
    for names in COMBINATIONS
]
IGNORED = -100


class Case(NamedTuple):
    """Logits (examples, classes), their reference answers, and options: arrays, which may be traced, and numbers."""

    logits: Any
    answers: Any
    arrays: dict[str, Any]
    numbers: dict[str, Any]

    def option(self, name, default=None):
        return (self.arrays | self.numbers).get(name, default)

    def arguments(self, convert=np.asarray):
        """Return the arrays to which losses have derivatives, by the names of the arguments, and all the rest."""
        given = {"logits": self.logits, "reference_answers": self.answers, **self.arrays}
        arrays = {name: convert(values) for name, values in given.items()}
        smooth = {name for name, values in given.items() if values.dtype.kind == "f"}
        rest = {name: arrays[name] for name in given.keys() - smooth}
        return {name: arrays[name] for name in given if name in smooth}, rest | self.numbers

    def examples(self, chosen):
        """Return the case of some of the examples."""
        of_examples = ("where", "example_weights")
        arrays = {name: values[chosen] if name in of_examples else values for name, values in self.arrays.items()}
        return Case(self.logits[chosen], self.answers[chosen], arrays, self.numbers)


def moderate_case(names, count=12, classes=4, dtype="float64"):
    """Draw rows on which textbook formulas keep most of their digits."""
    rng = np.random.default_rng(1)
    class_ids = rng.integers(0, classes, size=count)
    logits = representable(rng.normal(size=(count, classes)) * 2, dtype)
    return with_options(rng, names, logits, class_ids, dtype)


def demanding_case(names, count, classes, dtype):
    """Draw rows of which some are confident, tied, shifted or hold -inf, with NaN and inf wherever nothing may look."""
    rng = np.random.default_rng(2)
    class_ids = rng.integers(0, classes, size=count)
    normal = rng.normal(size=(count, classes))
    at_label = np.arange(classes) == class_ids[:, None]
    lead = rng.choice(LEADS[dtype], size=(count, 1))
    absent = np.where(rng.random((count, classes)) < 0.3, -np.inf, normal * 3)
    kinds = [
        normal * 3,
        normal + np.where(at_label, lead, 0),
        rng.integers(-2, 3, size=(count, classes)) * 1.0,
        normal * 5 + rng.choice([-60, 30, 100], size=(count, 1)),
        np.where(at_label, normal, absent),
        np.where(at_label, -np.inf, np.where(np.roll(at_label, 1, axis=1), normal, absent)),
    ]
    kind = rng.choice(len(kinds), size=(count, 1), p=[0.2, 0.4, 0.1, 0.1, 0.15, 0.05])
    case = with_options(rng, names, representable(np.choose(kind, kinds), dtype), class_ids, dtype)
    if "class_weights" in names and classes > 2:
        case.arrays["class_weights"][classes // 2] = 0
    if "example_weights" in names:
        case.arrays["example_weights"][rng.random(count) < 0.2] = 0
    return poisoned(rng, case)


def with_options(rng, names, logits, class_ids, dtype):
    count, classes = logits.shape
    arrays, numbers, answers = {}, {}, class_ids
    if "where" in names:
        at_label = np.arange(classes) == class_ids[:, None]
        # A label of -inf needs a class beside it.
        beside = np.roll(at_label, 1, axis=1) & np.isneginf(logits[np.arange(count), class_ids])[:, None]
        arrays["where"] = (rng.random((count, classes)) < 0.7) | at_label | beside
    if "class_weights" in names:
        arrays["class_weights"] = representable(rng.uniform(0.25, 3, size=classes), dtype)
    if "example_weights" in names:
        arrays["example_weights"] = representable(rng.uniform(0.25, 3, size=count), dtype)
    if "label_smoothing" in names:
        numbers["label_smoothing"] = 0.1
    if "z_loss" in names:
        numbers["z_loss"] = 0.05
    if "ignore_index" in names:
        numbers["ignore_index"] = IGNORED
        answers = np.where(np.arange(count) % 4 == 1, IGNORED, class_ids)
    if "probabilities" in names:
        answers = rng.dirichlet(np.ones(classes), size=count) * rng.choice([0.5, 1, 1, 1, 2], size=(count, 1))
        # Some are sharp, some sparse, and some no probabilities but for the formula.
        sharp = np.where(np.arange(classes) == class_ids[:, None], 1, rng.choice([0, 1e-3], size=(count, classes)))
        answers = np.choose(rng.integers(3, size=(count, 1)), [answers, sharp, np.round(answers, 1)])
        answers = representable(answers, dtype)
    return Case(logits, answers, arrays, numbers)


def poisoned(rng, case):
    """Put NaN and infinities where the options say that nothing is looked at."""
    unseen = np.zeros(case.logits.shape, bool)
    arrays, answers = case.arrays, case.answers
    if "where" in arrays:
        unseen |= ~arrays["where"]
        if answers.ndim == 2:
            answers = np.where(unseen, rng.choice([np.nan, np.inf, 0.5], size=unseen.shape), answers)
    if "ignore_index" in case.numbers:
        ignored = (answers == IGNORED)[:, None]
        unseen |= ignored
        if "where" in arrays:
            arrays = arrays | {"where": arrays["where"] & ~(ignored & (rng.random(ignored.shape) < 0.5))}
    if "example_weights" in arrays:
        unseen |= (arrays["example_weights"] == 0)[:, None]
        if answers.ndim == 2:
            answers = np.where(unseen, rng.choice([np.nan, -np.inf, 0.5], size=unseen.shape), answers)
    poison = rng.choice([np.nan, np.inf, -np.inf, 0.0], size=unseen.shape)
    return Case(np.where(unseen, poison, case.logits), answers, arrays, case.numbers)


def call(backend, function, case, dtype, *vectors, **options):
    """Call a function of the loss family with all that the case holds."""
    names = tuple(case.arrays)
    positional = [backend.logits(case.logits, dtype), answers_on(backend, case.answers, dtype)]
    positional += [backend.logits(vector, dtype) for vector in vectors]
    positional += [
        backend.array(values) if values.dtype == bool else backend.logits(values, dtype)
        for values in case.arrays.values()
    ]
    return backend.call(with_arrays(function, names), *positional, **case.numbers, **options)


def answers_on(backend, answers, dtype):
    return backend.logits(answers, dtype) if answers.dtype.kind == "f" else backend.array(answers)


@cache
def with_arrays(function, names):
    """Return the function with its arrays `names` as the last positional ones, for compilers to trace."""

    def positional(*arrays, **options):
        first = len(arrays) - len(names)
        return function(*arrays[:first], **dict(zip(names, arrays[first:], strict=True)), **options)

    return positional


def divisor(case):
    """Return what the mean divides the sum of the losses by."""
    examples, weights = case.option("example_weights", np.ones(len(case.answers))), case.option("class_weights")
    if case.answers.ndim == 2:
        return examples.sum()
    counted = case.answers != IGNORED
    of_labels = 1 if weights is None else weights[case.answers[counted]]
    return (examples[counted] * of_labels).sum()
