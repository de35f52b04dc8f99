"""Times two callables in turn, so that what else the machine does meets both alike."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Comparison(NamedTuple):
    """Medians in seconds, and the median and quartiles of the ratios of neighbouring runs."""

    ours: float
    peer: float
    ratio: float
    low: float
    high: float
    rounds: int


def compared(ours: Callable[[], Any], peer: Callable[[], Any], seconds: float) -> Comparison:
    """Run both in turn for about `seconds`, at least seven times each, after two runs to warm up.

    Calls of microseconds are timed in batches, so that the clock does not count.
    """
    for function in (ours, peer):
        function()
    batch = max(1, round(2e-3 / max(_time(peer, 1), _time(ours, 1), 1e-9)))
    times: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while len(times) < 7 or time.perf_counter() < end:
        # Whoever comes second finds caches warm: take turns at that too.
        if len(times) % 2:
            times.append((_time(ours, batch), _time(peer, batch)))
        else:
            times.append(tuple(reversed((_time(peer, batch), _time(ours, batch)))))
    ratios = [a / b for a, b in times]
    low, _, high = statistics.quantiles(ratios, n=4)
    medians = (statistics.median(side) for side in zip(*times, strict=True))
    return Comparison(*medians, statistics.median(ratios), low, high, len(times))


def _time(function: Callable[[], Any], batch: int) -> float:
    start = time.perf_counter()
    for _ in range(batch):
        function()
    return (time.perf_counter() - start) / batch
