"""Runs every form of every operation on every case, and compares with exact arithmetic."""

from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from stable_softmax.reference.bounds import PRECISIONS, error_shares
from stable_softmax.reference.exact import Exact, ExactRows, exact_rows
from stable_softmax.report._cases import Case, cases
from stable_softmax.report._forms import OPERATIONS, Function, forms_of

LIBRARIES = {"numpy": "NumPy", "jax": "JAX", "torch": "PyTorch"}


class Backend(StrEnum):
    """The keys of `LIBRARIES`, as an option that may be repeated takes them."""

    numpy = "numpy"
    jax = "jax"
    torch = "torch"


class Cell(NamedTuple):
    """What one form of one operation gave on one case."""

    backend: str
    dtype: str
    operation: str
    case: str
    topic: str
    form: str
    #: "nan", "inf" or "collapsed to 0" where the exact value is none of these.
    failure: str | None
    #: The largest, over all entries that are normal numbers of the dtype; None without such, or after a failure.
    relative_error: float | None
    #: The largest error as a share of what the accuracy contract allows; None if not finite.
    share_of_bound: float | None

    @property
    def has_no_digit(self) -> bool:
        """Whether not one digit is right somewhere."""
        return self.failure is not None or (self.relative_error or 0) >= 1

    @property
    def keeps_contract(self) -> bool:
        """Whether the contract allows every error."""
        return self.share_of_bound is not None and self.share_of_bound <= 1


def installed_backends() -> list[str]:
    """Return the names of the backends that can be imported."""
    return [name for name in LIBRARIES if find_spec(name)]


def title(backend: str) -> str:
    """Return the name and version of a backend, and how it runs."""
    return f"{LIBRARIES[backend]} {version(backend)}{' under jit' if backend == 'jax' else ''}"


def dtypes_of(backend: str) -> tuple[str, ...]:
    """Return the names of the floating-point dtypes of a backend."""
    return tuple(dtype for dtype in PRECISIONS if backend != "numpy" or dtype != "bfloat16")


def measured(backend: str, dtype: str) -> Iterator[Cell]:
    """Yield every cell of one backend and dtype."""
    forms = forms_of(backend)
    for case, exact in _exact_cases(dtype):
        for operation in OPERATIONS:
            for name, form in forms.items():
                values = evaluated(backend, getattr(form, operation), case, dtype)
                compared = _compared(values, getattr(exact, operation), case, dtype)
                yield Cell(backend, dtype, operation, case.name, case.topic, name, *compared)


def cell_count(backend: str, dtype: str) -> int:
    """Return how many cells `measured` yields."""
    return len(list(cases(dtype))) * len(OPERATIONS) * len(forms_of(backend))


class Row(NamedTuple):
    """What one form gives for the label of the first example of a case."""

    backend: str
    form: str
    probability: float
    loss: float
    #: Of its own loss.
    gradient: float


def rows_of(case: Case, backends: list[str], dtype: str) -> list[Row]:
    """Return the values for the first example of a case: the exact ones, and those of every form."""
    first = case._replace(logits=case.logits[:1], class_ids=case.class_ids[:1])
    label = int(first.class_ids[0])
    exact = exact_rows(first.logits, first.class_ids)
    quantities = [exact.softmax.nearest, exact.crossentropy.nearest, exact.gradient.nearest]
    rows = [Row("", "exact", *_of_label(quantities, label))]
    for backend in backends:
        for name, form in forms_of(backend).items():
            quantities = [evaluated(backend, function, first, dtype) for function in form]
            rows.append(Row(LIBRARIES[backend], name, *_of_label(quantities, label)))
    return rows


def _of_label(quantities: list[NDArray[np.float64]], label: int) -> tuple[float, float, float]:
    probabilities, losses, gradient = quantities
    return float(probabilities[0, label]), float(losses[0]), float(gradient[0, label])


@cache
def _exact_cases(dtype: str) -> list[tuple[Case, ExactRows]]:
    return [(case, exact_rows(case.logits, case.class_ids, divisor=len(case.logits))) for case in cases(dtype)]


def evaluated(backend: str, function: Function, case: Case, dtype: str) -> NDArray[np.float64]:
    """Return what a function gives for a case, in arrays of a backend."""
    if backend == "jax":
        jax = import_module("jax")
        jax.config.update("jax_enable_x64", True)
        xp, run = jax.numpy, jax.jit(function)
    else:
        xp, run = array_namespace(import_module(backend).asarray(np.zeros(1))), function
    logits = xp.astype(xp.asarray(case.logits), getattr(xp, dtype))
    # The textbook's forms overflow and divide by zero.
    with np.errstate(all="ignore"):
        return np.asarray(xp.astype(run(logits, xp.asarray(case.class_ids)), xp.float64))


def _compared(
    values: NDArray[np.float64], exact: Exact, case: Case, dtype: str
) -> tuple[str | None, float | None, float | None]:
    """Return failure, largest relative error and share of the bound."""
    largest_share = float(np.max(error_shares(values, exact, case.logits, dtype)))
    share = largest_share if np.isfinite(largest_share) else None
    normal = np.abs(exact.nearest) >= PRECISIONS[dtype].smallest_normal
    if np.any(np.isnan(values)):
        return "nan", None, None
    if np.any(np.isinf(values)):
        return "inf", None, None
    if np.any(values[normal] == 0):
        return "collapsed to 0", None, share
    if not np.any(normal):
        return None, None, share
    return None, float(np.max(exact.error(values)[normal] / np.abs(exact.nearest[normal]))), share
