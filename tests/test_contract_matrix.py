"""The contract as a table: what goes in and what comes out, for each function of the loss family on each backend."""

import math

import numpy as np
import pytest
from contract_columns import (
    COLUMNS,
    FUNCTIONS,
    assert_pattern,
    excluded,
    matching,
    negative,
    outside,
    results,
    row,
    weight,
)
from loss_options import with_arrays

from stable_softmax import log_softmax, logsumexp, softmax

pytestmark = [pytest.mark.covering_on("numpy"), pytest.mark.quick_on("numpy")]

INF, NAN, T, F = math.inf, math.nan, True, False
LN2, LN3 = math.log(2), math.log(3)
FLAT, THIRDS, FIRST = [0.0, 0, 0], [1 / 3, -2 / 3, 1 / 3], [1.0, 0, 0]
ZEROS, NANS = [0, 0, 0], [NAN, NAN, NAN]
#: The loss and gradient of an example that nothing is to be learned from, and of one that has none.
NOTHING, SPOILED = (0, ZEROS), (NAN, NANS)
SMOOTH, MEAN = {"label_smoothing": 0.1}, {"reduction": "mean"}
WEIGHTED_MEAN = {**MEAN, "class_weights": [1, 3, 0]}
AXIS_0 = {"axis": 0, "where": [[T], [T], [F]], "class_weights": [1, 2, 3]}
EVERYTHING = {"where": [T, F, T], "class_weights": [0.5, 1, 2], "z_loss": 1, "label_smoothing": np.float32(0.1)}

# One example of three classes, which the test puts between two ordinary ones.
EXAMPLES = [
    row("ordinary", FLAT, 1, LN3, THIRDS),
    # Class ids
    row("id C", FLAT, 3, *SPOILED, outside(3)),
    row("id C + 1", FLAT, 4, *SPOILED, outside(4)),
    row("id -1", FLAT, -1, *SPOILED, outside(-1)),
    row("id -C", FLAT, -3, *SPOILED, outside(-3)),
    row("id -C - 1", FLAT, -4, *SPOILED, outside(-4)),
    row("largest int64", FLAT, 2**63 - 1, *SPOILED, outside(2**63 - 1)),
    row("smallest int64", FLAT, -(2**63), *SPOILED, outside(-(2**63))),
    row("largest uint64", FLAT, np.uint64(2**64 - 1), *SPOILED, outside(2**64 - 1)),
    row("largest uint8", FLAT, np.uint8(255), *SPOILED, outside(255)),
    row("uint8", FLAT, np.uint8(1), LN3, THIRDS),
    row("uint64", FLAT, np.uint64(1), LN3, THIRDS),
    row("bad id, smoothing 1", FLAT, 3, *SPOILED, outside(3), label_smoothing=1),
    row("bad id, weights", FLAT, -1, *SPOILED, outside(-1), class_weights=[2, 1, 0]),
    row("bad id, z_loss", FLAT, 3, *SPOILED, outside(3), z_loss=1),
    row("bad id, another ignored", FLAT, 3, *SPOILED, outside(3), ignore_index=-1),
    # Logits
    row("-inf", [0, 0, -INF], 0, LN2, [-0.5, 0.5, 0]),
    row("-inf at the label", [0, 0, -INF], 2, INF, [0.5, 0.5, -1]),
    row("-inf beside the label only", [-INF, 0, -INF], 1, *NOTHING),
    row("all -inf", [-INF] * 3, 0, *SPOILED),
    row("+inf", [0, INF, 0], 0, *SPOILED),
    row("+inf at the label", [0, INF, 0], 1, *SPOILED),
    row("+inf and -inf", [-INF, INF, 0], 0, *SPOILED),
    row("NaN", [NAN, 0, 0], 1, *SPOILED),
    row("NaN and +inf", [NAN, INF, 0], 1, *SPOILED),
    row("largest finite", [3e38, -3e38, 0], 0, *NOTHING),
    # Probabilities
    row("probabilities", FLAT, [0.25, 0.75, 0], LN3, [1 / 12, -5 / 12, 1 / 3]),
    row("sum 2", FLAT, [1.0, 1, 0], 2 * LN3, [-1 / 3, -1 / 3, 2 / 3]),
    row("sum 0", FLAT, [0.0, 0, 0], *NOTHING),
    row("negative probability", FLAT, [-1.0, 1.5, 0.5], *SPOILED, negative(-1)),
    row("negative probability, weight 0", FLAT, [-1.0, 1, 1], *SPOILED, negative(-1), class_weights=[0, 1, 1]),
    row("negative probability, smoothing 1", FLAT, [1, -2.3, 0], *SPOILED, negative(-2.3, "(1, 1)"), label_smoothing=1),
    row("negative and NaN probability", FLAT, [NAN, 1, -INF], *SPOILED, negative("-inf", "(1, 2)")),
    row("rounded probability", FLAT, [-0.001, 0.501, 0.5], LN3, [1 / 3 + 0.001, 1 / 3 - 0.501, -1 / 6]),
    row("NaN probability", FLAT, [NAN, 0.5, 0.5], *SPOILED),
    row("probability 0 at -inf", [0, 0, -INF], FIRST, LN2, [-0.5, 0.5, 0]),
    row("probability at -inf", [0, 0, -INF], [0.75, 0, 0.25], INF, [-0.25, 0.5, -0.25]),
    row("probability 0 at NaN", [0, 0, NAN], FIRST, *SPOILED),
    row("probability 0 at +inf", [0, 0, INF], FIRST, *SPOILED),
    row("probabilities of all -inf", [-INF] * 3, FIRST, *SPOILED),
    # where
    row("mask leaves all", FLAT, 1, LN3, THIRDS, where=[T, T, T]),
    row("mask leaves the label only", FLAT, 1, *NOTHING, where=[F, T, F]),
    row("mask excludes NaN", [0, NAN, 0], 0, LN2, [-0.5, 0, 0.5], where=[T, F, T]),
    row("mask excludes +inf", [0, INF, 0], 0, LN2, [-0.5, 0, 0.5], where=[T, F, T]),
    row("mask excludes -inf", [0, -INF, 0], 0, LN2, [-0.5, 0, 0.5], where=[T, F, T]),
    row("mask leaves -inf at the label", [0, NAN, -INF], 2, INF, [1, 0, -1], where=[T, F, T]),
    row("mask leaves -inf only", [-INF, 0, -INF], 2, *SPOILED, where=[T, F, T]),
    row("mask leaves NaN", [0, 0, NAN], 0, *SPOILED, where=[T, F, T]),
    row("mask excludes the label", FLAT, 1, *SPOILED, excluded(1), where=[T, F, T]),
    row("mask leaves no class", FLAT, 0, *SPOILED, excluded(0), where=[F, F, F]),
    row("mask, id C", FLAT, 3, *SPOILED, excluded(3), where=[T, F, T]),
    row("mask excludes NaN probability", [0, INF, 0], [1, NAN, 0], LN2, [-0.5, 0, 0.5], where=[T, F, T]),
    row("mask excludes negative probability", FLAT, [1, -9.0, 0], LN2, [-0.5, 0, 0.5], where=[T, F, T]),
    row("mask leaves negative probability", FLAT, [1, NAN, -9], *SPOILED, negative(-9, "(1, 2)"), where=[T, F, T]),
    row("mask excludes all of the target", FLAT, [0.0, 1, 0], *NOTHING, where=[T, F, T]),
    row("mask excludes some of the target", FLAT, [0.5, 0.5, 0], LN2 / 2, [-0.25, 0, 0.25], where=[T, F, T]),
    row("mask leaves probabilities no class", [NAN, INF, -INF], [1, NAN, -9], *NOTHING, where=[F, F, F]),
    row("mask leaves nothing, all options", FLAT, FIRST, *NOTHING, **EVERYTHING | {"where": [F, F, F]}),
    row("mask leaves all -inf", [-INF, 0, -INF], FIRST, *SPOILED, where=[T, F, T]),
    row("mask leaves all -inf, no target", [-INF, 0, -INF], [0.0, 1, 0], *SPOILED, where=[T, F, T]),
    # class_weights
    row("weights", FLAT, 1, 2 * LN3, [2 / 3, -4 / 3, 2 / 3], class_weights=[1, 2, 3]),
    row("weights, probabilities", FLAT, [0.5, 0.5, 0], LN3, [1 / 12, -5 / 12, 1 / 3], class_weights=[0.5, 1.5, 0]),
    row("weight 0", FLAT, 1, *NOTHING, class_weights=[1, 0, 1]),
    row("weight 0 at -inf", [0, -INF, 0], 1, *NOTHING, class_weights=[1, 0, 1]),
    row("weight 0 at NaN", [0, NAN, 0], 1, *SPOILED, class_weights=[1, 0, 1]),
    row("weight NaN", FLAT, 1, *SPOILED, weight("nan"), class_weights=[1, NAN, 1]),
    row("weight inf", FLAT, 1, *SPOILED, weight("inf"), class_weights=[1, INF, 1]),
    row("weight -1", FLAT, 1, *SPOILED, weight(-1.0), class_weights=[1.0, -1, 1]),
    row("integer weight -1", FLAT, 1, *SPOILED, weight("-1..."), class_weights=[1, -1, 1]),
    row("weight NaN elsewhere", FLAT, 0, LN3, [-2 / 3, 1 / 3, 1 / 3], weight("nan"), class_weights=[1, NAN, 1]),
    row("weight NaN of a probability", FLAT, [0.5, 0.5, 0], *SPOILED, weight("nan"), class_weights=[1, NAN, 1]),
    # example_weights; the ordinary examples beside have weight 1
    row("counts twice", FLAT, 1, 2 * LN3, [2 / 3, -4 / 3, 2 / 3], example_weights=[1, 2, 1]),
    row(
        "counts half, probabilities",
        FLAT,
        [0.5, 0.5, 0],
        LN3 / 2,
        [-1 / 12, -1 / 12, 1 / 6],
        example_weights=[1, 0.5, 1],
    ),
    row("does not count", NANS, 1, *NOTHING, example_weights=[1, 0, 1]),
    row("does not count, id C", NANS, 3, *NOTHING, example_weights=[1, 0, 1]),
    row("does not count, ignored", NANS, 9, *NOTHING, example_weights=[1, 0, 1], ignore_index=9),
    row("does not count, probabilities", NANS, [NAN, -1, INF], *NOTHING, example_weights=[1, 0, 1]),
    row("counts, all options", FLAT, FIRST, *NOTHING, **EVERYTHING | {"where": [F, F, F]}, example_weights=[1, 2, 1]),
    row("example NaN", FLAT, 1, *SPOILED, weight("nan", "example_weights"), example_weights=[1, NAN, 1]),
    row("example inf", FLAT, 1, *SPOILED, weight("inf", "example_weights"), example_weights=[1, INF, 1]),
    row("example -1", FLAT, 1, *SPOILED, weight("-1...", "example_weights"), example_weights=[1, -1, 1]),
    # label_smoothing
    row("smoothing", FLAT, 1, LN3, [0.3, -0.6, 0.3], **SMOOTH),
    row("smoothing, probabilities", FLAT, [0.25, 0.75, 0], LN3, [0.075, -0.375, 0.3], **SMOOTH),
    row("smoothing 0 at -inf", [0, 0, -INF], 0, LN2, [-0.5, 0.5, 0], label_smoothing=0),
    row("smoothing at -inf", [0, 0, -INF], 0, INF, [-13 / 30, 14 / 30, -1 / 30], **SMOOTH),
    row("smoothing, weight 0", [0, 0, -INF], 0, LN2 * 29 / 30, [-0.45, 0.45, 0], **SMOOTH, class_weights=[1, 1, 0]),
    row("smoothing, weights", FLAT, 1, 2 * LN3, [19 / 30, -1.2, 17 / 30], **SMOOTH, class_weights=[1, 2, 3]),
    row("smoothing 1, weights", FLAT, 1, 3 * LN3, [2 / 3, 1 / 3, -1], label_smoothing=1, class_weights=[1, 2, 6]),
    row("smoothing, mask", [0, NAN, 0], 0, LN2, [-0.45, 0, 0.45], **SMOOTH, where=[T, F, T]),
    # z_loss
    row("z_loss", FLAT, 1, LN3 + LN3**2, [(2 * LN3 + 1) / 3, (2 * LN3 - 2) / 3, (2 * LN3 + 1) / 3], z_loss=1),
    row("z_loss, mask", [0, NAN, 0], 0, LN2 + LN2**2, [LN2 - 0.5, 0, LN2 + 0.5], z_loss=1, where=[T, F, T]),
    row("z_loss, -inf at the label", [0, 0, -INF], 2, INF, [LN2 + 0.5, LN2 + 0.5, -1], z_loss=1),
    row("z_loss, all -inf", [-INF] * 3, 0, *SPOILED, z_loss=1),
    row("z_loss, +inf", [INF, 0, 0], 0, *SPOILED, z_loss=1),
    row("z_loss, huge", [1.5e38, -3e38, 0], 0, INF, [3e38, 0, 0], z_loss=1),
    # ignore_index
    row("ignored", FLAT, -1, *NOTHING, ignore_index=-1),
    row("ignored in [0, C)", FLAT, 1, *NOTHING, ignore_index=1),
    row("ignored NaN and infinities", [NAN, INF, -INF], -1, *NOTHING, ignore_index=-1),
    row("ignored -inf", [-INF] * 3, 1, *NOTHING, ignore_index=np.int64(1)),
    row("ignored largest uint64", FLAT, np.uint64(2**64 - 1), *NOTHING, ignore_index=2**64 - 1),
    row("ignored and excluded", FLAT, 1, *NOTHING, ignore_index=1, where=[T, F, T]),
    row("ignored, mask leaves no class", NANS, -1, *NOTHING, ignore_index=-1, where=[F, F, F]),
    row("ignored, all options", [NAN, -INF, INF], -1, *NOTHING, ignore_index=-1, **EVERYTHING),
    row("another ignored", FLAT, 1, LN3, THIRDS, ignore_index=-1),
    row("ignore_index beyond uint8", FLAT, np.uint8(1), LN3, THIRDS, ignore_index=257),
    row("ignore_index beyond int64", FLAT, 1, LN3, THIRDS, ignore_index=2**64 + 1),
    row("ignore_index below uint64", FLAT, np.uint64(2**64 - 1), *SPOILED, outside(2**64 - 1), ignore_index=-1),
]

PAIR, HALVES, NO_ROWS, NO_IDS = [FLAT, FLAT], [[-0.5, 0, 0.5], [0.5, 0, -0.5]], np.zeros((0, 3)), np.zeros(0, int)
DEEP, MANY = np.zeros((1, 2, 1, 1, 2, 1, 1, 3)), np.arange(300)
# Whole batches.
BATCHES = [
    row("no example", NO_ROWS, NO_IDS, NO_IDS, NO_ROWS),
    row("sum over no example", NO_ROWS, NO_IDS, 0, NO_ROWS, reduction="sum"),
    row("mean over no example", NO_ROWS, NO_IDS, 0, NO_ROWS, **MEAN),
    row("mean over no probabilities", NO_ROWS, NO_ROWS, 0, NO_ROWS, **MEAN),
    row("mean over no weight", NO_ROWS, NO_IDS, 0, NO_ROWS, **MEAN, class_weights=[1, 2, 3], ignore_index=1),
    row("one class", [[5.0], [-3.0]], [0, 0], [0, 0], [[0], [0]]),
    row("one class, weighted", [[5.0], [-3.0]], [0, 0], [0, 0], [[0], [0]], **SMOOTH, class_weights=[2]),
    row("one class of -inf", [[-INF], [0.0]], [0, 0], [NAN, 0], [[NAN], [0]]),
    row("0-d batch", FLAT, 1, LN3, THIRDS),
    row("0-d batch, mask and weights", FLAT, 0, 2 * LN2, [-1, 0, 1], where=[T, F, T], class_weights=[2, 1, 1]),
    row("0-d batch, ignored", NANS, 3, *NOTHING, ignore_index=3, **MEAN),
    row("0-d batch, id C", FLAT, 3, *SPOILED, outside(3, "()")),
    row("7 batch axes", DEEP, DEEP[..., 0].astype(int) + 1, DEEP[..., 0] + LN3, DEEP + THIRDS),
    row("uint8, 300 classes", [MANY * 0.0], np.uint8([200]), [math.log(300)], [1 / 300 - (MANY == 200)]),
    row("mask (C,)", PAIR, [0, 2], [LN2, LN2], HALVES, where=[T, F, T]),
    row("mask (1, C)", PAIR, [0, 2], [LN2, LN2], HALVES, where=[[T, F, T]]),
    row("mask ()", PAIR, [1, 1], [LN3, LN3], [THIRDS, THIRDS], where=T),
    row("mask (N, 1)", PAIR, [1, 1], [LN3, NAN], [THIRDS, NANS], excluded(1), where=[[T], [F]]),
    row(
        "mask (N, 1), probabilities", PAIR, [FIRST, FIRST], [LN3, 0], [[-2 / 3, 1 / 3, 1 / 3], ZEROS], where=[[T], [F]]
    ),
    row("mask (C,) of nothing", PAIR, [FIRST, FIRST], [0, 0], [ZEROS, ZEROS], where=[F, F, F]),
    row("mask () of nothing, mean", PAIR, [FIRST, FIRST], 0, [ZEROS, ZEROS], **MEAN, where=F),
    row("mask (N, 1), ignored", PAIR, [1, 9], [LN3, 0], [THIRDS, ZEROS], where=[[T], [F]], ignore_index=9),
    row("axis 0", [[0.0, 0]] * 3, [1, 0], [2 * LN2, LN2], [[1, -0.5], [-1, 0.5], [0, 0]], **AXIS_0),
    row("mean of the counted", [FLAT, NANS], [1, 9], LN3, [THIRDS, ZEROS], **MEAN, ignore_index=9),
    row("all ignored, none", [NANS, NANS], [9, 9], [0, 0], [ZEROS, ZEROS], reduction="none", ignore_index=9),
    row("all ignored, sum", [NANS, NANS], [9, 9], 0, [ZEROS, ZEROS], reduction="sum", ignore_index=9),
    row("all ignored, mean", [NANS, NANS], [9, 9], 0, [ZEROS, ZEROS], **MEAN, ignore_index=9),
    row("mean of weights", PAIR, [1, 0], LN3, [[1 / 4, -1 / 2, 1 / 4], [-1 / 6, 1 / 12, 1 / 12]], **WEIGHTED_MEAN),
    row(
        "mean of examples",
        PAIR,
        [1, 0],
        LN3,
        [[1 / 4, -1 / 2, 1 / 4], [-1 / 6, 1 / 12, 1 / 12]],
        **MEAN,
        example_weights=[3, 1],
    ),
    row("mean of examples 0", [NANS, NANS], [0, 9], 0, [ZEROS, ZEROS], **MEAN, example_weights=[0, 0]),
    row("mean, one counts", [FLAT, NANS], [1, 9], LN3, [THIRDS, ZEROS], **MEAN, example_weights=[5, 0]),
    row(
        "mean, example NaN",
        PAIR,
        [0, 1],
        NAN,
        [NANS, NANS],
        weight("nan", "example_weights"),
        **MEAN,
        example_weights=[1, NAN],
    ),
    row("mean of extreme examples", PAIR, [1, 1], LN3, [THIRDS, ZEROS], **MEAN, example_weights=[3e38, 1e-38]),
    row("mean of weights 0", PAIR, [0, 2], 0, [ZEROS, ZEROS], **MEAN, class_weights=[0, 1, 0]),
    row(
        "mean, targets", PAIR, [[0.0, 1, 0], FIRST], 2 * LN3, [[0.5, -1, 0.5], [-1 / 3, 1 / 6, 1 / 6]], **WEIGHTED_MEAN
    ),
    row("mean with id C", PAIR, [1, 3], NAN, [[1 / 6, -1 / 3, 1 / 6], NANS], outside(3), **MEAN),
    row("mean, weight NaN", PAIR, [0, 1], NAN, [NANS, NANS], weight("nan"), **MEAN, class_weights=[1, NAN, 1]),
]

# logits, where; softmax, log_softmax, logsumexp
NORMALIZATIONS = {
    "ordinary": (FLAT, [T, T, T], [1 / 3] * 3, [-LN3] * 3, LN3),
    "-inf": ([0, 0, -INF], [T, T, T], [0.5, 0.5, 0], [-LN2, -LN2, -INF], LN2),
    "all -inf": ([-INF] * 3, [T, T, T], NANS, NANS, -INF),
    "+inf": ([INF, 0, -INF], [T, T, T], NANS, NANS, INF),
    "NaN": ([NAN, 0, INF], [T, T, T], NANS, NANS, NAN),
    "excluded": (FLAT, [T, F, T], [0.5, 0, 0.5], [-LN2, -INF, -LN2], LN2),
    "excluded NaN": ([0, NAN, 0], [T, F, T], [0.5, 0, 0.5], [-LN2, -INF, -LN2], LN2),
    "excluded +inf": ([0, INF, 0], [T, F, T], [0.5, 0, 0.5], [-LN2, -INF, -LN2], LN2),
    "one class left": ([NAN, 7, INF], [F, T, F], [0, 1, 0], [-INF, 0, -INF], 7),
    "no class left": ([NAN, INF, 0], [F, F, F], ZEROS, [-INF] * 3, -INF),
}

BOTH_KINDS = (
    "reference_answers must be class ids of an integer dtype or probabilities of a real floating dtype, not ..."
)
ONE_LIBRARY = "must be an array of a library that array-api-compat supports (...), not list: pass ...asarray(...)"
CAST = "class ids need an integer dtype: cast them"
ONE_HOT = "one-hot rows count as probabilities: convert them to floating"
SWAPPED = "are logits and reference_answers swapped?"
IDS_SHAPE = "reference_answers must have shape (2,), which is logits' shape (2, 3) without axis 1"
# One argument, what replaces it, and what that raises, where "..." stands for anything. Logits have shape (2, 3).
ERRORS = [
    ("logits", np.zeros((2, 0)), ValueError, "logits must have at least one class along axis -1, ... (2, 0)"),
    ("logits", np.zeros((2, 3), bool), TypeError, "logits must have a real ... or integer dtype, not ...bool"),
    ("logits", np.zeros((2, 3), complex), TypeError, "logits must have a real ... or integer dtype, not ...complex128"),
    (
        "reference_answers",
        np.zeros(2),
        ValueError,
        "reference_answers of dtype ... must have logits' shape (2, 3), not (2,); " + CAST,
    ),
    ("reference_answers", np.zeros((3, 2)), ValueError, "reference_answers of dtype ... are probabilities ..."),
    ("reference_answers", np.zeros((2, 3), int), ValueError, f"{IDS_SHAPE}, not (2, 3); {ONE_HOT}"),
    ("reference_answers", np.zeros(3, int), ValueError, f"{IDS_SHAPE}, not (3,); axis=0 would fit"),
    ("reference_answers", np.zeros((2, 1), int), ValueError, f"{IDS_SHAPE}, not (2, 1): squeeze axis 1"),
    ("reference_answers", np.zeros((2, 3, 4), int), ValueError, f"{IDS_SHAPE}, not (2, 3, 4); {SWAPPED}"),
    ("reference_answers", np.zeros((2, 3, 4)), ValueError, f"reference_answers ..., not (2, 3, 4); {SWAPPED}"),
    ("reference_answers", np.zeros((), int), ValueError, "reference_answers must have shape (2,), ..., not ()"),
    ("reference_answers", np.zeros(2, bool), TypeError, BOTH_KINDS + "bool"),
    ("reference_answers", np.zeros((2, 3), bool), TypeError, f"{BOTH_KINDS}bool; {ONE_HOT}"),
    ("reference_answers", np.zeros((2, 3), complex), TypeError, BOTH_KINDS + "complex128"),
    ("reference_answers", [0, 1], TypeError, f"reference_answers {ONE_LIBRARY}"),
    ("where", np.ones(4, bool), ValueError, "where must broadcast to logits' shape (2, 3), not (4,)"),
    (
        *("where", np.ones(2, bool), ValueError),
        "where must broadcast to logits' shape (2, 3), not (2,); ignore_index leaves examples out of a loss",
    ),
    ("where", np.ones((3, 2), bool), ValueError, "where must broadcast to logits' shape (2, 3), not (3, 2)"),
    ("where", np.ones((1, 2, 3), bool), ValueError, "where must broadcast to logits' shape (2, 3), not (1, 2, 3)"),
    ("where", np.ones((2, 0), bool), ValueError, "where must broadcast to logits' shape (2, 3), not (2, 0)"),
    ("where", np.ones((2, 3)), TypeError, "where must be an array of booleans, not ...float64: pass where != 0"),
    (
        "where",
        np.ones((2, 3), np.uint8),
        TypeError,
        "where must be an array of booleans, not ...uint8: pass where != 0",
    ),
    ("where", [True] * 3, TypeError, f"where {ONE_LIBRARY}"),
    ("class_weights", np.ones(4), ValueError, "class_weights must have shape (3,), one for each class, not (4,)"),
    ("class_weights", np.ones((1, 3)), ValueError, "class_weights must have shape (3,), ..., not (1, 3)"),
    ("class_weights", np.ones(()), ValueError, "class_weights must have shape (3,), one for each class, not ()"),
    ("class_weights", np.ones(3, bool), TypeError, "class_weights must have ..., not ...bool: convert them to numbers"),
    ("class_weights", np.ones(3, complex), TypeError, "class_weights must have a real ... dtype, not ...complex128"),
    ("class_weights", [1.0] * 3, TypeError, f"class_weights {ONE_LIBRARY}"),
    ("example_weights", np.ones(3), ValueError, "example_weights must have shape (2,), one for each example, not (3,)"),
    ("example_weights", np.ones((2, 1)), ValueError, "example_weights must have shape (2,), ..., not (2, 1)"),
    (
        "example_weights",
        np.ones(2, bool),
        TypeError,
        "example_weights must have ..., not ...bool: convert them to numbers",
    ),
    ("example_weights", [1.0] * 2, TypeError, f"example_weights {ONE_LIBRARY}"),
    ("label_smoothing", 1.5, ValueError, "label_smoothing must lie in [0, 1], but is 1.5"),
    ("label_smoothing", -0.1, ValueError, "label_smoothing must lie in [0, 1], but is -0.1"),
    ("label_smoothing", NAN, ValueError, "label_smoothing must lie in [0, 1], but is nan"),
    ("label_smoothing", "0.1", TypeError, "label_smoothing must be a real number, not '0.1'"),
    ("label_smoothing", True, TypeError, "label_smoothing must be a real number, not True"),
    ("label_smoothing", None, TypeError, "label_smoothing must be a real number, not None"),
    ("z_loss", -1.0, ValueError, "z_loss must lie in [0, ...], but is -1.0"),
    ("z_loss", INF, ValueError, "z_loss must lie in [0, ...], but is inf"),
    ("z_loss", NAN, ValueError, "z_loss must lie in [0, ...], but is nan"),
    ("z_loss", True, TypeError, "z_loss must be a real number, not True"),
    ("ignore_index", 1.5, TypeError, "ignore_index must be an integer, not 1.5"),
    ("ignore_index", "1", TypeError, "ignore_index must be an integer, not '1'"),
    ("reduction", "avg", ValueError, "reduction must be 'none', 'mean' or 'sum', not 'avg'; did you mean 'mean'?"),
    ("reduction", "batchmean", ValueError, "reduction must be 'none', ..., not 'batchmean'; did you mean 'mean'?"),
    ("reduction", "all", ValueError, "reduction must be 'none', 'mean' or 'sum', not 'all'"),
    ("reduction", "Mean", ValueError, "reduction must be 'none', ..., not 'Mean'; did you mean 'mean'?"),
    ("reduction", None, ValueError, "reduction must be 'none', ..., not None; did you mean 'none'?"),
    ("axis", "mean", TypeError, "axis must be an integer, not 'mean': reduction is a keyword"),
    ("axis", True, TypeError, "axis must be an integer, not True"),
    ("ignore_index", True, TypeError, "ignore_index must be an integer, not True"),
]


# Of dtypes that only NumPy has.
NUMPY_ERRORS = [
    (
        "logits",
        np.zeros((2, 3), object),
        TypeError,
        "logits must have a real ... or integer dtype, not object: pass ...astype(...)",
    ),
    ("logits", np.zeros((2, 3), [("a", float)]), TypeError, "logits must have a real ... or integer dtype, not [...]"),
    ("reference_answers", np.zeros(2, object), TypeError, BOTH_KINDS + "object: pass ..."),
    ("where", np.ones((2, 3), object), TypeError, "where must be an array of booleans, not object"),
    (
        "class_weights",
        np.ones(3, "U1"),
        TypeError,
        "class_weights must have a real ... or integer dtype, not <U1: pass ...astype(...)",
    ),
]


def described(case):
    name, value, *_ = case
    return f"{name} {value.dtype}{value.shape}" if isinstance(value, np.ndarray) else f"{name} {value!r}"


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", EXAMPLES, ids=str)
def test_one_example_leaves_its_neighbours_alone(backend, row, column):
    answer = np.asarray(row.answers)
    plain = np.asarray(FIRST if answer.ndim else 0, answer.dtype)

    def among_ordinary_ones(logits, answer, where):
        masked = {"where": [[T, T, T], where, [T, T, T]]} if "where" in row.options else {}
        batch = [[1.0, 2, 3], logits, [3, 2, 1]], np.stack([plain, answer, plain])
        return results(backend, column, *batch, **row.options | masked)

    with row.outcome(backend) as error:
        given = among_ordinary_ones(row.logits, answer, row.options.get("where"))
    if error:
        return
    for result, pattern in zip(given, row.results(column), strict=True):
        assert_pattern(result[1], pattern)
    for result, same in zip(given, among_ordinary_ones(FLAT, plain, [T, T, T]), strict=True):
        np.testing.assert_array_equal(result[[0, 2]], same[[0, 2]])


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", BATCHES, ids=str)
def test_batch(backend, row, column):
    with row.outcome(backend) as error:
        given = results(backend, column, row.logits, row.answers, **row.options)
    if not error:
        for result, pattern in zip(given, row.results(column), strict=True):
            assert_pattern(result, pattern)


@pytest.mark.parametrize("case", NORMALIZATIONS.values(), ids=NORMALIZATIONS)
def test_normalization_leaves_its_neighbours_alone(backend, case):
    logits, where, *patterns = case
    for function, pattern in zip((softmax, log_softmax, logsumexp), patterns, strict=True):
        given, ordinary = (
            backend.call(
                with_arrays(function, ("where",)),
                backend.logits([[1, 2, 3], row, [3, 2, 1]], "float32"),
                backend.array(np.asarray([[T, T, T], left, [T, T, T]])),
            )
            for row, left in ((logits, where), (FLAT, [T, T, T]))
        )
        assert_pattern(given[1], pattern)
        np.testing.assert_array_equal(given[[0, 2]], ordinary[[0, 2]])


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize(
    "case",
    [*ERRORS, *(pytest.param(case, marks=pytest.mark.only_backends("numpy")) for case in NUMPY_ERRORS)],
    ids=described,
)
def test_bad_argument(backend, function, case):
    """Under jit, too, although only shapes and dtypes are known of what is traced."""
    name, value, error, message = case
    arguments = {"logits": np.zeros((2, 3)), "reference_answers": np.asarray([0, 2]), name: value}
    if function is FUNCTIONS["hvp"]:
        arguments["vector"] = np.zeros((2, 3))
    logits, *others = (backend.array(a) if isinstance(a, np.ndarray) else a for a in arguments.values())
    rest = dict(zip(list(arguments)[1:], others, strict=True))
    with pytest.raises(error, match=matching(message)):
        backend.bound(lambda logits: function(logits, **rest))(logits)


@pytest.mark.only_backends("torch", "array-api-strict")
@pytest.mark.parametrize("argument", ["reference_answers", "where", "class_weights", "vector"])
def test_argument_of_another_library(backend, argument):
    """Only the logits are traced under jit: what else is traced is an array of JAX, wherever it came from."""
    others = {"reference_answers": np.asarray([0, 2]), argument: np.ones(3 if argument == "class_weights" else (2, 3))}
    for name, function in FUNCTIONS.items():
        if argument == "vector" and name != "hvp":
            continue
        given = others | {"vector": np.ones((2, 3))} if name == "hvp" else others
        rest = {name: array if name == argument else backend.array(array) for name, array in given.items()}
        with pytest.raises(
            TypeError, match=matching(f"all arrays must ... one array library, ... {argument} is numpy...")
        ):
            backend.bound(lambda logits, f=function, rest=rest: f(logits, **rest))(backend.array(np.zeros((2, 3))))


@pytest.mark.only_backends("numpy")
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_errors_come_before_any_work_on_the_logits(function):
    """Which are one number, seen 2**51 times: nothing of their size fits into memory."""
    logits = np.broadcast_to(np.float32(0), (2, 2**50))
    vector = {"vector": logits} if function is FUNCTIONS["hvp"] else {}
    for name, bad in (
        ("reference_answers", np.asarray([0, 2**50])),
        ("reference_answers", np.zeros(2)),
        ("where", np.ones(3, bool)),
        ("class_weights", np.ones(3)),
        ("example_weights", np.ones(3)),
        ("label_smoothing", 2),
        ("z_loss", -1),
        ("ignore_index", 0.0),
        ("reduction", "avg"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"^{name} "):
            function(logits, **{"reference_answers": np.asarray([0, 2]), name: bad}, **vector)


@pytest.mark.parametrize("column", COLUMNS[2:])
def test_result_has_the_dtype_of_the_logits_whatever_the_options(backend, dtype, column):
    """The call checks for it. Weights are in double precision."""
    dtypes, options = (dtype, "float64"), {"ignore_index": 9, **EVERYTHING, **MEAN}
    for result in results(backend, column, [FLAT] * 3, [0, 2, 9], dtypes, **options):
        assert np.all(np.isfinite(result))
