"""Times callables in turn, so that what else the machine does meets all alike."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Comparison(NamedTuple):
    """Medians in seconds, their ratio, and the quartiles of the ratios of neighbouring runs."""

    ours: float
    peer: float
    ratio: float
    low: float
    high: float
    rounds: int


def compared(ours: Callable[[], Any], peer: Callable[[], Any], seconds: float) -> Comparison:
    """Run both in turn for about `seconds`, and at least seven times each."""
    rounds = _rounds((ours, peer), seconds, least=7)
    low, _, high = statistics.quantiles([a / b for a, b in rounds], n=4)
    our_median, peer_median = _medians(rounds)
    return Comparison(our_median, peer_median, our_median / peer_median, low, high, len(rounds))


def medians(functions: Sequence[Callable[[], Any]], seconds: float) -> list[float]:
    """Return the median time of each, in seconds, from turns for about `seconds`, and at least three of them."""
    return _medians(_rounds(functions, seconds, least=3))


def _medians(rounds: list[list[float]]) -> list[float]:
    return [statistics.median(times) for times in zip(*rounds, strict=True)]


def _rounds(functions: Sequence[Callable[[], Any]], seconds: float, least: int) -> list[list[float]]:
    """Return the times of each round, after one run of each to warm up.

    Calls of microseconds are timed in batches, so that the clock does not count.
    """
    for function in functions:
        function()
    batch = max(1, round(2e-3 / max(_time(function, 1) for function in functions)))
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < least or time.perf_counter() < end:
        # Whoever comes second finds caches warm: take turns at that too.
        step = 1 if len(rounds) % 2 else -1
        rounds.append([_time(function, batch) for function in functions[::step]][::step])
    return rounds


def _time(function: Callable[[], Any], batch: int) -> float:
    start = time.perf_counter()
    for _ in range(batch):
        function()
    return (time.perf_counter() - start) / batch
