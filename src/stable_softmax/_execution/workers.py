"""The number of threads that share the work on a large NumPy array."""

import operator
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from contextvars import ContextVar, copy_context
from typing import Any

_WORKERS = ContextVar("workers", default=1)


def set_workers(workers: int) -> AbstractContextManager[Any]:
    """Set the number of threads that share the work on each large NumPy array.

    Parameters
    ----------
    workers : int
        At least 1, the default; or negative, to count down from the number of processors: -1 uses all of them.

    Returns
    -------
    context manager
        Restores the previous number at the end of a ``with`` statement.

    Raises
    ------
    TypeError, ValueError
        If `workers` is not as above.

    Notes
    -----
    The results have the same bits for any number of workers. Each call starts its own threads and ends them. The number
    applies only in the thread that sets it, and in tasks that this thread starts. The other array libraries have thread
    pools of their own.

    Examples
    --------
    >>> import numpy as np
    >>> import stable_softmax
    >>> with stable_softmax.set_workers(2):
    ...     probabilities = stable_softmax.softmax(np.zeros((100000, 10)))
    >>> float(probabilities[0, 0])
    0.1
    """
    restoring = _Restoring(_number_of(workers), _WORKERS.get())
    _WORKERS.set(restoring.workers)
    return restoring


class _Restoring(AbstractContextManager["_Restoring"]):
    """Restores the previous number of workers at the end of a `with` statement."""

    def __init__(self, workers: int, previous: int) -> None:
        self.workers, self._previous = workers, previous

    def __repr__(self) -> str:
        return f"<workers set to {self.workers}: a context manager that restores {self._previous}>"

    def __exit__(self, *_error: object) -> None:
        _WORKERS.set(self._previous)


def get_workers() -> int:
    """Return the number of threads that share the work on a large NumPy array.

    Examples
    --------
    >>> import stable_softmax
    >>> with stable_softmax.set_workers(2):
    ...     stable_softmax.get_workers()
    2
    """
    return _WORKERS.get()


def for_each(function: Callable[[Any], None], items: Sequence[Any], workers: int) -> None:
    """Call the function with each item, on this many threads."""
    workers = min(workers, len(items))
    if workers <= 1:
        for item in items:
            function(item)
        return

    def share(first: int) -> None:
        for item in items[first::workers]:
            function(item)

    started = []
    with ThreadPoolExecutor(workers) as pool:
        for first in range(workers):
            try:
                # The context carries settings such as NumPy's errstate.
                started.append(pool.submit(copy_context().run, share, first))
            except RuntimeError:  # pragma: no cover - tested in a process of its own, where no thread can start
                share(first)
    for done in started:
        done.result()


def _number_of(workers: object) -> int:
    if isinstance(workers, bool) or not hasattr(workers, "__index__"):
        raise TypeError(f"workers must be an integer, not {workers!r}")
    number = operator.index(workers)
    processors = os.cpu_count() or 1
    if number < 0:
        number += 1 + processors
    if number < 1:
        raise ValueError(f"workers must be at least 1, or count down from -1 to -{processors}, but is {workers}")
    return number
