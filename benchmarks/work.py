"""One row of a benchmark: what is compared with what."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Work(NamedTuple):
    """Two callables that do the same work, and the ratio of times to reach."""

    table: str
    operation: str
    shape: tuple[int, ...]
    dtype: str
    peer_name: str
    target: float
    ours: Callable[[], Any]
    peer: Callable[[], Any]
