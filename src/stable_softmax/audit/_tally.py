"""What is counted of the examples, block after block."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stable_softmax import softmax_crossentropy_with_logits, textbook
from stable_softmax.audit._examples import Block, Example, Examples
from stable_softmax.command_line.found import Found, is_off, like_probabilities
from stable_softmax.reference.bounds import PRECISIONS
from stable_softmax.reference.exact import exact_rows

#: The leads at which the next row of the table begins.
LEADS = (0, 5, 10, 20, 40)
#: The columns of the table: of the loss, and of the gradient at the label.
COUNTS = ("examples", "loss_zero", "loss_off", "gradient_zero", "gradient_off")
#: Logits are coarse where neighbouring numbers of their dtype lie further apart than this.
COARSE = 0.01
#: What an example may be, besides measured.
KINDS = (
    *("ignored", "label_out_of_range", "nan", "positive_infinity", "all_negative_infinity"),
    *("some_negative_infinity", "infinite_loss", "loss_below_range", "like_probabilities"),
)
#: How many are kept: of the worst examples, and of those that are drawn.
_WORST, _DRAWN = 10, 600


@dataclass
class Offset:
    """The largest logits of the rows: what the logits of a row have in common, as far as it matters."""

    rows: int = 0
    smallest: float = np.inf
    largest: float = -np.inf
    total: float = 0.0
    #: The largest distance of neighbouring numbers of the dtype there.
    spacing: float = 0.0
    coarse_rows: int = 0

    def add(self, largest: NDArray[Any], dtype: str) -> None:
        """Count some rows, of logits of a dtype."""
        spacings = np.ldexp(1.0, np.frexp(largest)[1] - PRECISIONS[dtype].significant_bits)
        self.rows += len(largest)
        self.smallest = min(self.smallest, float(np.min(largest, initial=np.inf)))
        self.largest = max(self.largest, float(np.max(largest, initial=-np.inf)))
        self.total += float(np.sum(largest, dtype=np.float64))
        self.spacing = max(self.spacing, float(np.max(spacings, initial=0)))
        self.coarse_rows += int(np.count_nonzero(spacings > COARSE))


class Losses(NamedTuple):
    """Leads of the labels, and losses by the usual form and by this library, one entry for each example."""

    #: Where the examples are, in C order.
    positions: NDArray[Any]
    leads: NDArray[Any]
    usual: NDArray[Any]
    ours: NDArray[Any]


class Loss(NamedTuple):
    """An example of which the usual form loses much."""

    example: Example
    lead: float
    usual: float
    ours: float
    #: What the usual form lacks, as a share of the loss, at most 1.
    lost: float
    logits: NDArray[Any]

    def exact(self) -> float:
        """Return the loss by its definition, in exact arithmetic."""
        return float(exact_rows(self.logits[None], np.asarray([self.example.label])).crossentropy.nearest[0])


@dataclass
class Tally:
    """Counts of examples; those with a label in range and a finite loss are measured."""

    examples: Examples
    ignore_index: int | None = None
    found: dict[str, Found[Example]] = field(default_factory=lambda: {kind: Found() for kind in KINDS})
    offset: Offset = field(default_factory=Offset)
    table: NDArray[np.int64] = field(default_factory=lambda: np.zeros((len(LEADS) + 1, len(COUNTS)), dtype=np.int64))
    usual_total: float = 0.0
    our_total: float = 0.0
    #: The errors of the usual losses that are off.
    error_total: float = 0.0
    worst: list[Loss] = field(default_factory=list)
    _drawn: list[Losses] = field(default_factory=lambda: [Losses(*[np.empty(0)] * 4)])
    _random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    @property
    def totals(self) -> dict[str, int]:
        """The sums of the table's columns; the first is the number of measured examples."""
        return dict(zip(COUNTS, self.table.sum(axis=0).tolist(), strict=True))

    @property
    def mean_losses(self) -> tuple[float, float]:
        """The mean of the measured losses by the usual form and by this library, NaN over none."""
        count = self.totals["examples"] or np.nan
        return self.usual_total / count, self.our_total / count

    @property
    def error_share(self) -> float:
        """The errors of the usual losses that are off as a share of all losses, NaN over none."""
        return self.error_total / (self.our_total or np.nan)

    @property
    def drawn(self) -> Losses:
        """Some of the measured losses, drawn at random, and the worst ones."""
        chosen = Losses(*map(np.concatenate, zip(*self._drawn, strict=True)))
        others = [loss for loss in self.worst if loss.example.position not in chosen.positions]
        worst = [(loss.example.position, loss.lead, loss.usual, loss.ours) for loss in others]
        return Losses(*np.concatenate([np.stack(chosen), np.reshape(worst, (-1, 4)).T], axis=1))

    def add(self, block: Block) -> None:
        """Count the examples of a block."""
        with np.errstate(all="ignore"):
            measurable = self._counted_labels(block) & self._counted_rows(block)
            self._measure(block if np.all(measurable) else block.only(np.flatnonzero(measurable)))

    def _counted_labels(self, block: Block) -> NDArray[np.bool]:
        """Count what is wrong with labels, and return where they can be used."""
        labels = block.labels
        in_range = (labels >= 0) & (labels < self.examples.logits.classes)
        ignored = self._ignored(labels)
        self._find("ignored", block, ignored)
        self._find("label_out_of_range", block, ~in_range & ~ignored)
        return in_range & ~ignored

    def _counted_rows(self, block: Block) -> NDArray[np.bool]:
        """Count what is odd about rows of logits, and return which have a softmax."""
        largest, smallest = block.logits.max(axis=1), block.logits.min(axis=1)
        asked, finite = ~self._ignored(block.labels), np.isfinite(largest)
        self._find("nan", block, asked & np.isnan(largest))
        self._find("positive_infinity", block, asked & (largest == np.inf))
        self._find("all_negative_infinity", block, asked & (largest == -np.inf))
        self._find("some_negative_infinity", block, asked & finite & (smallest == -np.inf))
        self._find("like_probabilities", block, asked & like_probabilities(block.logits, self._coarsest_dtype))
        self.offset.add(largest[asked & finite], self._coarsest_dtype)
        return finite

    @property
    def _coarsest_dtype(self) -> str:
        return self.examples.logits.coarsest_dtype

    def _ignored(self, labels: NDArray[Any]) -> NDArray[np.bool]:
        return np.zeros(labels.shape, dtype=np.bool) if self.ignore_index is None else labels == self.ignore_index

    def _measure(self, block: Block) -> None:
        losses = _losses(block)
        self._find("infinite_loss", block, ~np.isfinite(losses.ours))
        self._find("loss_below_range", block, _is_below_range(losses))
        measured = np.flatnonzero(np.isfinite(losses.ours))
        if len(measured) < len(losses.ours):
            block, losses = block.only(measured), Losses(*(values[measured] for values in losses))
        self.usual_total += float(np.sum(losses.usual, dtype=np.float64))
        self.our_total += float(np.sum(losses.ours, dtype=np.float64))
        off = is_off(losses.usual, losses.ours)
        self.error_total += float(np.sum(np.abs(losses.usual - losses.ours)[off], dtype=np.float64))
        self._add_to_table(block, losses, off)
        self._keep_worst(block, losses, off)
        chance = _DRAWN / max(self.examples.logits.count, 1)
        kept = self._random.random(len(measured)) < chance
        self._drawn.append(Losses(*(values[kept] for values in losses)))

    def _add_to_table(self, block: Block, losses: Losses, off: NDArray[np.bool]) -> None:
        usual_gradient = textbook.shifted_softmax(block.logits)[_at_labels(block)] - 1
        gradient = np.expm1(-losses.ours)
        # What a wider dtype has the range for.
        lost = _is_below_range(losses) & (self.examples.logits.working_dtype != "float64")
        loss_off, gradient_off = off | lost, is_off(usual_gradient, gradient) | lost
        columns = (
            np.ones_like(off),
            loss_off & (losses.usual == 0),
            loss_off,
            gradient_off & (usual_gradient == 0),
            gradient_off,
        )
        places = np.digitize(losses.leads, LEADS)
        self.table += np.stack([np.bincount(places[column], minlength=len(self.table)) for column in columns], axis=1)

    def _keep_worst(self, block: Block, losses: Losses, off: NDArray[np.bool]) -> None:
        """Keep those that lose the largest share, and among the wholly lost those whose loss is largest."""
        candidates = np.flatnonzero(off)
        usual, ours = losses.usual[candidates], losses.ours[candidates]
        lost = np.minimum(np.abs(usual - ours) / ours, 1)
        for worst in np.lexsort((ours, lost))[-_WORST:]:
            place = candidates[worst]
            lead, logits = float(losses.leads[place]), block.logits[place].copy()
            numbers = float(usual[worst]), float(ours[worst]), float(lost[worst])
            self.worst.append(Loss(block.example(place), lead, *numbers, logits))
        self.worst = sorted(self.worst, key=lambda loss: (loss.lost, loss.ours), reverse=True)[:_WORST]

    def _find(self, kind: str, block: Block, where: NDArray[np.bool]) -> None:
        self.found[kind].add(where, block.example)


def _losses(block: Block) -> Losses:
    others = block.logits.copy()
    others[_at_labels(block)] = -np.inf
    leads = block.logits[_at_labels(block)] - others.max(axis=1)
    labels = block.labels.astype(np.int64)
    usual = textbook.shifted_crossentropy(block.logits, labels)
    return Losses(block.positions, leads, usual, softmax_crossentropy_with_logits(block.logits, labels))


def _is_below_range(losses: Losses) -> NDArray[np.bool]:
    return (losses.ours == 0) & np.isfinite(losses.leads)


def _at_labels(block: Block) -> tuple[NDArray[Any], NDArray[Any]]:
    return np.arange(len(block.labels)), block.labels
