"""What is counted of the examples, block after block."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stable_softmax import softmax, softmax_js_divergence, softmax_kl_divergence
from stable_softmax.command_line.found import Found, is_off, like_probabilities
from stable_softmax.command_line.usual import usual_kl_divergence
from stable_softmax.compare._pair import Block, Pair

#: What a row of either file may be, so that it has no softmax.
TROUBLE = ("nan", "positive_infinity", "all_negative_infinity")
#: What an example may be, besides compared.
KINDS = (
    *(f"{role}_{kind}" for role in ("logits", "reference") for kind in TROUBLE),
    *(f"{role}_like_probabilities" for role in ("logits", "reference")),
    *("infinite_kl", "left_out", "tied"),
)
#: How many of the most different examples are kept.
_WORST = 10


class Prediction(NamedTuple):
    """The most probable class of an example, the first one of several."""

    class_id: int
    probability: float


class Difference(NamedTuple):
    """An example, and how far apart its predictions are."""

    position: int
    kl: float
    js: float
    prediction: Prediction
    reference: Prediction


class Summary(NamedTuple):
    """What many divergences amount to; NaN where there are none."""

    examples: int
    mean: float
    median: float
    percentile_90: float
    percentile_99: float
    percentile_99_9: float
    largest: float


@dataclass
class Tally:
    """Divergences and counts of examples; those of which both rows have a softmax are compared."""

    pair: Pair
    found: dict[str, Found[int]] = field(default_factory=lambda: {kind: Found() for kind in KINDS})
    compared: int = 0
    #: In how many of them the most probable class is the same.
    same_class: int = 0
    worst: list[Difference] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make room for three numbers for each example, NaN for those that are not compared."""
        self._kl, self._js, self._usual = np.full((3, self.pair.logits.count), np.nan)

    @cached_property
    def positions(self) -> NDArray[np.intp]:
        """The examples whose KL divergence is finite, from the smallest one to the largest, once all are counted."""
        return np.argsort(self._kl, kind="stable")[: np.count_nonzero(np.isfinite(self._kl))]

    @property
    def kl(self) -> NDArray[np.float64]:
        """The finite KL divergences by this library, in order of size."""
        return self._kl[self.positions]

    @property
    def usual(self) -> NDArray[np.float64]:
        """The KL divergences of the same examples by the usual form, in the same order."""
        return self._usual[self.positions]

    @property
    def js(self) -> NDArray[np.float64]:
        """The JS divergences by this library."""
        return self._js[~np.isnan(self._js)]

    @property
    def usual_off(self) -> int:
        """How many KL divergences the usual form misses by more than 1 %."""
        return int(np.count_nonzero(is_off(self.usual, self.kl)))

    @property
    def usual_negative(self) -> int:
        """How many KL divergences are negative in the usual form."""
        return int(np.count_nonzero(self.usual < 0))

    def add(self, block: Block) -> None:
        """Count the examples of a block."""
        with np.errstate(all="ignore"):
            self._find("left_out", block, ~block.included)
            usable = self._counted_rows(block)
            self._compare(block if np.all(usable) else block.only(np.flatnonzero(usable)))

    def _counted_rows(self, block: Block) -> NDArray[np.bool]:
        """Count the rows without a softmax, and return where both files have one."""
        usable = block.included
        dtypes = self.pair.logits.coarsest_dtype, self.pair.reference.coarsest_dtype
        for role, rows, dtype in zip(("logits", "reference"), (block.logits, block.reference), dtypes, strict=True):
            self._find(f"{role}_like_probabilities", block, block.included & like_probabilities(rows, dtype))
            largest = rows.max(axis=1)
            found = np.isnan(largest), largest == np.inf, largest == -np.inf
            for kind, where in zip(TROUBLE, found, strict=True):
                self._find(f"{role}_{kind}", block, block.included & where)
            usable = usable & np.isfinite(largest)
        return usable

    def _compare(self, block: Block) -> None:
        kl = softmax_kl_divergence(block.logits, block.reference, dtype=self.pair.working_dtype)
        js = softmax_js_divergence(block.logits, block.reference, dtype=self.pair.working_dtype)
        infinite = kl == np.inf
        self._find("infinite_kl", block, infinite)
        self._kl[block.positions], self._js[block.positions] = kl, js
        self._usual[block.positions] = usual_kl_divergence(block.logits, block.reference)
        self.compared += len(kl)
        classes, reference_classes = block.logits.argmax(axis=1), block.reference.argmax(axis=1)
        self.same_class += int(np.count_nonzero(classes == reference_classes))
        self._find("tied", block, _are_tied(block.logits) | _are_tied(block.reference))
        self._keep_worst(block, kl, js)

    def _keep_worst(self, block: Block, kl: NDArray[Any], js: NDArray[Any]) -> None:
        """Keep those with the largest KL divergence, and among equal ones those with the largest JS divergence."""
        for place in np.lexsort((js, kl))[-_WORST:].tolist():
            predictions = _prediction(block.logits[place]), _prediction(block.reference[place])
            self.worst.append(Difference(block.position(place), float(kl[place]), float(js[place]), *predictions))
        self.worst = sorted(self.worst, key=lambda one: (-one.kl, -one.js, one.position))[:_WORST]

    def _find(self, kind: str, block: Block, where: NDArray[np.bool]) -> None:
        self.found[kind].add(where, block.position)


def summary(values: NDArray[np.float64]) -> Summary:
    """Summarize divergences."""
    if not len(values):
        return Summary(0, *[np.nan] * 6)
    quantiles = np.quantile(values, [0.5, 0.9, 0.99, 0.999, 1]).tolist()
    return Summary(len(values), float(np.mean(values)), *quantiles)


def _are_tied(rows: NDArray[Any]) -> NDArray[np.bool]:
    """Return where several classes are the most probable."""
    return np.count_nonzero(rows == rows.max(axis=1, keepdims=True), axis=1) > 1


def _prediction(row: NDArray[Any]) -> Prediction:
    class_id = int(row.argmax())
    return Prediction(class_id, float(softmax(row)[class_id]))
