"""The command that tells how far apart the predictions of two models are."""

import json
import re
import sys
import tracemalloc
from functools import partial
from pathlib import Path

import command_runs
import ml_dtypes
import numpy as np
import pytest
import zarr
from flint import arb, ctx
from matplotlib.figure import Figure
from safetensors.numpy import save_file
from stored_arrays import KINDS, half_written, saved

from stable_softmax import log_softmax, softmax
from stable_softmax.command_line import blocks, files
from stable_softmax.compare import _check, _pair, _plot
from stable_softmax.compare._tally import Tally

pytestmark = [pytest.mark.only_backends("numpy"), pytest.mark.covering, pytest.mark.installed]

SOUND, FINDINGS = 0, 1


run, refused = partial(command_runs.run, "compare"), partial(command_runs.refused, "compare")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved_pair(logits, reference):
    np.save("logits.npy", logits)
    np.save("reference.npy", reference)
    return "logits.npy", "reference.npy"


def compared(logits, reference, *options):
    """Save and compare arrays; return the exit code and the document."""
    result = run(*saved_pair(logits, reference), "--json", *options)
    return result.exit_code, json.loads(result.stdout, parse_constant=pytest.fail)


def models(examples=400, classes=7, noise=1e-3, seed=0):
    """Return logits of a model and of its original, which differ in some examples more than in others."""
    rng = np.random.default_rng(seed)
    reference = rng.normal(scale=3, size=(examples, classes))
    scale = noise * rng.lognormal(size=(examples, 1))
    return reference + scale * rng.normal(size=reference.shape), reference


def opened_pair(logits="logits.npy", reference="reference.npy", axis=-1):
    return _pair.paired(files.opened(logits), files.opened(reference), None, axis, None)


@pytest.mark.parametrize("role", ["logits", "labels"])
def test_labels_instead_of_logits_lead_to_the_audit(role):
    np.save("x.npy", np.zeros((4, 3)))
    np.save("y.npy", np.zeros(4, int))
    names = ("x.npy", "y.npy") if role == "labels" else ("y.npy", "x.npy")
    assert refused(*names).endswith("; y.npy looks like labels: stable-softmax audit x.npy y.npy")


def test_probabilities_instead_of_logits():
    logits, reference = models()
    code, document = compared(logits, softmax(reference))
    assert code == FINDINGS
    expected = "rows of the reference logits that look like probabilities, with the sum 1: 400 of 400; "
    assert document["findings"] == [expected + "save what goes into the softmax"]
    code, _ = compared(logits, log_softmax(reference))
    assert code == SOUND


def test_reference_in_a_coarser_dtype_may_be_the_quantized_model():
    logits, reference = (values.astype(np.float32) for values in models())
    _, document = compared(logits, reference.astype(np.float16))
    assert document["notes"] == [
        "the reference is in float16, and the logits in float32: the original model comes second"
    ]
    _, document = compared(logits.astype(np.float16), reference)
    assert document["notes"] == []


# Definitions, in many more digits than are lost


def exact_softmax(row):
    top = max(map(float, row))
    exponentials = [(arb(float(z)) - arb(top)).exp() for z in row]
    return [e / sum(exponentials, arb(0)) for e in exponentials]


def exact_kl(row, reference):
    with ctx.workprec(400):
        pairs = zip(exact_softmax(row), exact_softmax(reference), strict=True)
        return float(sum((q * (q / p).log() for p, q in pairs), arb(0)).mid())


def exact_js(row, reference):
    with ctx.workprec(400):
        pairs = list(zip(exact_softmax(row), exact_softmax(reference), strict=True))
        terms = [(x * (2 * x / (p + q)).log() / 2) for p, q in pairs for x in (p, q)]
        return float(sum(terms, arb(0)).mid())


def usual_kl(logits, reference):
    def log_softmax(z):
        z = z - z.max(axis=1, keepdims=True)
        return z - np.log(np.sum(np.exp(z), axis=1, keepdims=True))

    log_p, log_q = log_softmax(logits), log_softmax(reference)
    return np.sum(np.exp(log_q) * (log_q - log_p), axis=1)


def percentile(values, share):
    """Return the value below which a share of them lies, on a line between two of them."""
    place = share * (len(values) - 1)
    low = int(place)
    lower, upper = sorted(values)[low], sorted(values)[min(low + 1, len(values) - 1)]
    return lower + (place - low) * (upper - lower)


def summary_of(values):
    return {
        "examples": len(values),
        "mean": pytest.approx(np.mean(values), rel=1e-5),
        "median": pytest.approx(percentile(values, 0.5), rel=1e-5),
        "percentile_90": pytest.approx(percentile(values, 0.9), rel=1e-5),
        "percentile_99": pytest.approx(percentile(values, 0.99), rel=1e-5),
        "percentile_99_9": pytest.approx(percentile(values, 0.999), rel=1e-5),
        "largest": pytest.approx(max(values), rel=1e-5),
    }


# What it counts


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_figures_are_those_of_an_independent_count(name):
    logits, reference = (rows.astype(name) for rows in models(noise=1e-2 if name == "float16" else 1e-3))
    code, document = compared(logits, reference)
    working = "float64" if name == "float64" else "float32"
    pairs = list(zip(logits, reference, strict=True))
    kl, js = ([divergence(*pair) for pair in pairs] for divergence in (exact_kl, exact_js))
    usual = usual_kl(logits.astype(working), reference.astype(working))
    off = np.abs(usual - kl) > 0.01 * np.asarray(kl)
    assert code == SOUND
    assert document["working_dtype"] == working
    assert document["kl"] == summary_of(kl)
    assert document["js"] == summary_of(js)
    assert document["usual_kl"].pop("negative") == np.count_nonzero(usual < 0)
    assert document["usual_kl"].pop("off") == np.count_nonzero(off)
    assert (np.count_nonzero(usual < 0) > 0) == (np.count_nonzero(off) > 0) == (name != "float64")
    assert document["usual_kl"]["mean"] == pytest.approx(usual.astype(float).mean(), rel=1e-5)
    same = np.count_nonzero(logits.argmax(axis=1) == reference.argmax(axis=1))
    assert document["same_class"] == {"count": same, "share": same / 400}
    assert document["checked"]["examples"] == 10
    assert document["checked"]["largest_relative_error"]["stable_softmax"] < (1e-13 if name == "float64" else 1e-5)


def test_most_different_examples_are_named_with_both_predictions():
    logits, reference = models(noise=1)
    _, document = compared(logits, reference)
    kl = [exact_kl(*pair) for pair in zip(logits, reference, strict=True)]
    worst = np.argsort(kl)[::-1][:10]
    assert [one["index"] for one in document["worst"]] == [[index] for index in worst]
    for one, index in zip(document["worst"], worst, strict=True):
        assert one["kl"] == pytest.approx(kl[index])
        assert one["js"] == pytest.approx(exact_js(logits[index], reference[index]))
        for role, rows in (("logits", logits), ("reference_logits", reference)):
            probabilities = np.exp(rows[index]) / np.exp(rows[index]).sum()
            best = int(probabilities.argmax())
            assert one[role] == {"class": best, "probability": pytest.approx(probabilities[best])}
    assert any(one["logits"]["class"] != one["reference_logits"]["class"] for one in document["worst"])


def test_check_spans_the_divergences_and_tells_both_errors():
    logits, reference = (rows.astype(np.float32) for rows in models())
    pair = opened_pair(*saved_pair(logits, reference))
    tally = Tally(pair)
    for block in pair.blocks():
        tally.add(block)
    seen = []
    check = _check.checked(tally, lambda places: seen.extend(places.tolist()) or places)
    assert seen[0] == 0
    assert seen[-1] == 399
    chosen = tally.positions[seen]
    exact = np.asarray([exact_kl(logits[i], reference[i]) for i in chosen])
    usual = usual_kl(logits, reference)[chosen]
    assert check.usual == pytest.approx(np.max(np.abs(usual - exact) / exact))
    assert check.usual > 0.1
    assert check.ours < 1e-5


def test_rows_of_many_classes_are_checked_in_small_numbers(monkeypatch):
    monkeypatch.setattr(_check, "_LOGITS", 21)
    assert compared(*models(50))[1]["checked"]["examples"] == 3
    monkeypatch.setattr(_check, "_LOGITS", 1)
    assert compared(*models(50))[1]["checked"]["examples"] == 1


@pytest.mark.parametrize("stored", [np.float32, np.float64])
def test_equal_models_differ_by_exactly_nothing(stored):
    logits, _ = models()
    code, document = compared(logits.astype(stored), logits.astype(stored), "--plot", "plot.png", "--html", "x.html")
    assert code == SOUND
    for name in ("kl", "js", "usual_kl"):
        assert document[name]["examples"] == 400
        assert document[name]["mean"] == document[name]["largest"] == 0
    assert document["same_class"] == {"count": 400, "share": 1}
    assert document["usual_kl"]["off"] == document["usual_kl"]["negative"] == document["checked"]["examples"] == 0
    assert document["advice"] == "The usual form of KL serves for these logits."


def test_logits_that_differ_by_an_offset_make_the_same_predictions():
    reference = np.round(models()[1] * 8) / 8
    _, document = compared(reference + 1024, reference)
    assert document["kl"]["largest"] == document["js"]["largest"] == 0


def test_one_class_has_nothing_to_differ_in():
    code, document = compared(np.asarray([[3.0], [1e6]]), np.asarray([[-1.0], [0.0]]))
    assert code == SOUND
    assert document["kl"]["largest"] == document["js"]["largest"] == 0
    assert document["same_class"]["share"] == 1


def test_rows_without_a_divergence_are_counted_named_and_left_out():
    logits, reference = models(20, 3)
    logits[1, 0], logits[2, 0], logits[3] = np.nan, np.inf, -np.inf
    reference[4, 2], reference[1] = np.nan, -np.inf
    logits[5, 0] = -np.inf
    logits[6, 1] = reference[6, 1] = -np.inf
    reference[7, 2] = -np.inf
    code, document = compared(logits, reference)
    found = {kind: [index for (index,) in places["first"]] for kind, places in document["found"].items()}
    assert code == FINDINGS
    assert found == {
        "logits_nan": [1],
        "logits_positive_infinity": [2],
        "logits_all_negative_infinity": [3],
        "reference_nan": [4],
        "reference_positive_infinity": [],
        "reference_all_negative_infinity": [1],
        "logits_like_probabilities": [],
        "reference_like_probabilities": [],
        "infinite_kl": [5],
        "left_out": [],
        "tied": [],
    }
    assert all(places["count"] == len(places["first"]) for places in document["found"].values())
    finite = [0, 6, 7, *range(8, 20)]
    kl = [exact_kl(logits[i], reference[i]) for i in finite if i not in (6, 7)]
    kl.append(exact_kl(logits[6, [0, 2]], reference[6, [0, 2]]))
    p = np.exp(logits[7]) / np.exp(logits[7]).sum()
    q = np.exp(reference[7]) / np.exp(reference[7]).sum()
    kl.append(float(np.sum(q[:2] * np.log(q[:2] / p[:2]))))
    assert document["compared"] == document["js"]["examples"] == 16
    assert document["kl"] == summary_of(kl)
    assert document["usual_kl"]["mean"] == pytest.approx(np.mean(kl))
    assert document["worst"][0]["index"] == [5]
    assert document["worst"][0]["kl"] is None
    assert 0 < document["worst"][0]["js"] == document["js"]["largest"] < np.log(2)
    assert document["findings"] == [
        "rows of the logits with NaN: 1 (at 1)",
        "rows of the logits with +inf: 1 (at 2)",
        "rows of the logits of nothing but -inf: 1 (at 3)",
        "rows of the reference logits with NaN: 1 (at 4)",
        "rows of the reference logits of nothing but -inf: 1 (at 1)",
        "examples with an infinite KL: 1 (at 5); a class that is possible in the reference has probability 0 in the "
        "logits",
    ]
    assert document["advice"].startswith("Look first at the findings")


def test_exact_check_takes_classes_that_are_impossible_in_both():
    logits, reference = models(5, 4)
    logits[:, 0] = reference[:, 0] = reference[:, 1] = -np.inf
    _, document = compared(logits, reference)
    assert document["checked"]["examples"] == 5
    assert document["checked"]["largest_relative_error"]["stable_softmax"] < 1e-13
    assert document["usual_kl"]["off"] == 0


def test_where_every_kl_is_infinite_the_js_divergences_and_classes_are_compared():
    logits = np.asarray([[0.0, 1, -np.inf], [2, 1, -np.inf]])
    code, document = compared(logits, np.asarray([[0.0, 1, -20], [1, 2, -20]]))
    assert code == FINDINGS
    assert document["kl"]["examples"] == document["usual_kl"]["examples"] == document["checked"]["examples"] == 0
    assert document["js"]["examples"] == document["compared"] == 2
    assert document["same_class"]["count"] == 1
    lines = [line.split() for line in run("logits.npy", "reference.npy", "--plot", "x.png").stdout.splitlines()]
    assert ["mean", "-", f"{document['js']['mean']:.4e}", "-"] in lines


def test_only_the_first_of_many_are_named():
    _, document = compared(np.full((40, 3), np.nan), np.zeros((40, 3)))
    assert document["findings"] == ["rows of the logits with NaN: 40 (first at 0, 1, 2, 3, 4)"]
    assert document["kl"]["mean"] is document["same_class"]["share"] is None
    assert run("logits.npy", "reference.npy", "--html", "x.html").exit_code == FINDINGS


def test_ties_count_as_the_first_class_and_are_noted():
    code, document = compared(np.asarray([[1.0, 1, 0], [0, 1, 2]]), np.asarray([[0.0, 1, 0], [0, 1, 2]]))
    assert code == SOUND
    assert document["same_class"]["count"] == 1
    assert document["notes"] == ["examples where several classes are the most probable, of which the first counts: 1"]


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4), (2, 3, 0)])
def test_no_examples_are_sound(shape):
    code, document = compared(np.zeros(shape), np.zeros(shape), "--axis", 1, "--plot", "plot.png")
    assert code == SOUND
    assert document["examples"] == document["compared"] == 0
    assert document["advice"] == "There is nothing to compare."
    assert "There is nothing to compare." in run("logits.npy", "reference.npy", "--axis", 1).stdout


# Dtypes


def test_logits_alone_are_rounded_to_the_dtype_that_is_asked_for():
    logits, _ = models(50)
    result = run(*saved_pair(logits, logits)[:1] * 2, "--json", "--dtype", "bfloat16")
    document = json.loads(result.stdout)
    rounded = logits.astype(ml_dtypes.bfloat16).astype(float)
    assert document["dtype"] == "bfloat16"
    assert document["working_dtype"] == "float64"
    assert document["kl"] == summary_of([exact_kl(*pair) for pair in zip(rounded, logits, strict=True)])
    save_file({"logits": logits.astype(ml_dtypes.bfloat16)}, "x.safetensors")
    other = json.loads(run("x.safetensors", "logits.npy", "--json").stdout)
    assert other["kl"] == document["kl"]
    assert other["worst"] == document["worst"]


@pytest.mark.parametrize(
    ("stored", "reference", "working"),
    [("f2", "f4", "float32"), ("f4", "f8", "float64"), ("i1", "f2", "float64"), (">f4", "f4", "float32")],
)
def test_dtypes_may_differ(stored, reference, working):
    values = [[1, 2, 5], [5, 0, 1]]
    code, document = compared(np.asarray(values, stored), np.asarray(values, reference) + 1)
    assert code == SOUND
    assert document["working_dtype"] == working
    assert document["kl"]["largest"] == 0


def test_infinities_of_rounding_are_said_to_be():
    logits = np.asarray([[1e6, 0], [0, 1], [-1e6, 0]])
    _, document = compared(logits, logits, "--dtype", "float16")
    assert document["findings"] == [
        "rows of the logits with +inf once rounded to float16: 1 (at 0)",
        "examples with an infinite KL: 1 (at 2); a class that is possible in the reference has probability 0 in the "
        "logits once rounded to float16",
    ]


# Shapes, blocks and files


@pytest.mark.parametrize("axis", [0, 1, -1, -3])
@pytest.mark.parametrize("entries", [1, 40, 10**6])
def test_every_axis_and_block_size_gives_the_same(monkeypatch, axis, entries):
    logits, reference = models(60, 4)
    logits[33, 0] = np.nan
    _, whole = compared(logits, reference)
    moved = [np.moveaxis(rows.reshape(3, 4, 5, 4), -1, axis) for rows in (logits, reference)]
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", entries)
    _, document = compared(*moved, "--axis", axis)
    for name in ("kl", "js", "usual_kl"):
        assert document[name] == pytest.approx(whole[name])
    assert document["axis"] == axis % 4
    assert document["found"]["logits_nan"]["first"] == [[1, 2, 3]]
    ids = [int(np.ravel_multi_index(one["index"], (3, 4, 5))) for one in document["worst"]]
    assert ids == [one["index"][0] for one in whole["worst"]]
    assert document["checked"]["examples"] == 10


def test_one_example_has_no_index():
    code, document = compared(np.asarray([0.0, 30.0, 0.0]), np.asarray([0.0, 31.0, 0.0]))
    assert code == SOUND
    assert document["worst"][0]["index"] == []
    assert document["checked"]["examples"] == 1
    result = run("logits.npy", "reference.npy", "--plot", "x.png")
    assert result.exit_code == SOUND
    assert "in the example with the smallest KL above 0: at most " in " ".join(result.stdout.split())


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_holds_logits(monkeypatch, kind):
    logits, reference = models(90, 5)
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 100)
    _, expected = compared(logits, reference)
    document = json.loads(run("logits.npy", saved(kind, reference), "--json").stdout)
    assert document.pop("reference_logits")["name"].startswith("x.")
    for name in ("kl", "js", "usual_kl"):  # of blocks of other lengths
        assert document.pop(name) == pytest.approx(expected.pop(name))
    assert document["same_class"] == expected["same_class"]
    assert [one["index"] for one in document["worst"]] == [one["index"] for one in expected["worst"]]


def test_blocks_end_where_chunks_of_both_files_do(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 60)
    zarr.create_array("x.zarr", data=np.zeros((50, 2)), chunks=(4, 1))
    zarr.create_array("y.zarr", data=np.zeros((50, 2)), chunks=(6, 2))
    pair = opened_pair("x.zarr", "y.zarr")
    assert [block.positions[0] for block in pair.blocks()] == [0, 24, 48]


def test_chunks_that_are_not_stored_are_findings_and_those_of_the_mask_a_note():
    values = np.random.default_rng(0).normal(size=(40, 3))
    half_written("x.zarr", values, (10, 3))
    half_written("y.zarr", values, (20, 3))
    half_written("where.zarr", np.ones(40, np.int8), (4,))
    result = run("x.zarr", "y.zarr", "--where", "where.zarr", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == FINDINGS
    assert document["findings"] == [
        "chunks of the logits that are not stored, but filled in: 2",
        "chunks of the reference logits that are not stored, but filled in: 1",
    ]
    assert document["notes"][-1] == "chunks of the mask that are not stored, but filled in: 5"


def test_memory_is_bounded_whatever_the_files_hold(monkeypatch):
    entries, rows = 1 << 16, 100_000
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", entries)
    for name in ("logits.npy", "reference.npy"):
        np.lib.format.open_memmap(name, mode="w+", dtype=np.float32, shape=(rows, 50))  # 20 MB, sparse
    pair = opened_pair()
    for block in pair.blocks():
        Tally(pair).add(block)  # the library keeps some memory from the first call on
        break
    tracemalloc.start()
    tally = Tally(pair)
    for block in pair.blocks():
        assert block.logits.size <= entries
        tally.add(block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tally.compared == rows
    assert peak < 24 * rows + 30 * entries * 4  # 2 MB and 8 MB


# A mask of examples


@pytest.mark.parametrize("stored", [np.bool, np.int8, np.uint64])
def test_mask_leaves_examples_out(monkeypatch, stored):
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 100)
    logits, reference = models(60, 5)
    where = np.random.default_rng(1).integers(0, 2, 60).astype(stored)
    _, expected = compared(logits[where != 0], reference[where != 0])
    logits[where == 0] = np.nan
    np.save("where.npy", where)
    code, document = compared(logits, reference, "--where", "where.npy")
    assert code == SOUND
    assert document["kl"] == pytest.approx(expected["kl"])
    assert document["same_class"] == expected["same_class"]
    assert document["examples"] == 60
    assert document["compared"] == np.count_nonzero(where)
    assert document["found"]["left_out"]["count"] == np.count_nonzero(where == 0)
    assert document["notes"] == [f"examples that --where leaves out: {np.count_nonzero(where == 0)}"]
    assert document["where"] == {"name": "where.npy", "shape": [60], "dtype": np.dtype(stored).name}


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.asarray([0, 1, -100, 2]), "where.npy: a mask of examples holds 0 and 1 or booleans, not -100"),
        (np.ones(4), "where.npy: a mask of examples must be boolean or 0 and 1, not float64"),
        (
            np.ones((4, 3), bool),
            "where.npy: a mask of the examples of logits (4, 3) must have the shape (4,), not (4, 3)",
        ),
    ],
)
def test_masks_that_cannot_be_used(mask, reason):
    np.save("where.npy", mask)
    assert refused(*saved_pair(np.zeros((4, 3)), np.zeros((4, 3))), "--where", "where.npy") == reason


# What cannot be used


def test_shapes_that_differ_are_one_line_that_names_both():
    line = refused(*saved_pair(np.zeros((4, 3)), np.zeros((4, 5))))
    assert line == "logits.npy and reference.npy must have the same shape, not (4, 3) and (4, 5)"


def test_each_file_is_checked_and_named():
    names = saved_pair(np.zeros((4, 3)), np.zeros((4, 3), complex))
    assert refused(*names).startswith("reference.npy: logits must be float16, ")
    assert refused(*names[::-1]).startswith("reference.npy: logits must be float16, ")
    assert refused("logits.npy", "nowhere.npy") == "nowhere.npy: no such file"
    assert refused("logits.npy", "logits.npy", "--where", "nowhere.npy") == "nowhere.npy: no such file"
    assert refused("logits.npy", "logits.npy", "--axis", 2) == "logits.npy: there is no axis 2 in the shape (4, 3)"
    np.save("reference.npy", np.zeros((4, 0)))
    assert refused("reference.npy", "reference.npy").startswith("reference.npy: there are no classes along axis 1 ")


def test_destinations_are_checked_before_the_work():
    names = saved_pair(np.zeros((4, 3)), np.zeros((4, 3)))
    assert "the name must end in .htm, .html" in refused(*names, "--html", "logits.npy")
    assert "the name must end in " in refused(*names, "--plot", "logits.npy")


def test_missing_matplotlib_is_one_line_or_a_page_without_a_drawing(monkeypatch):
    for module in ("matplotlib", "matplotlib.backend_bases"):
        monkeypatch.setitem(sys.modules, module, None)
    names = saved_pair(np.zeros((4, 3)), np.zeros((4, 3)))
    line = refused(*names, "--plot", "x.png")
    assert line == 'a plot needs matplotlib: python -m pip install "stable-softmax[plot]"'
    assert run(*names, "--html", "x.html").exit_code == SOUND
    assert "<svg" not in Path("x.html").read_text()


# Text and files


def everything():
    """Return logits with everything in them that can be found."""
    logits, reference = models(3000, 5, noise=1)
    logits[0, 0], logits[1, 0], logits[2], logits[3:20, 1] = np.nan, np.inf, -np.inf, -np.inf
    reference[30, 0], reference[31, 0], reference[32] = np.nan, np.inf, -np.inf
    logits[40] = 1
    return logits, reference


def test_text_is_narrow_and_short():
    result = run(*saved_pair(*everything()), columns=200)
    lines = result.stdout.splitlines()
    assert result.exit_code == FINDINGS
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 56
    assert "\x1b" not in result.stdout
    lines = run(*saved_pair(*models())).stdout.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80


def test_text_and_json_have_the_same_figures():
    logits, reference = (rows.astype(np.float32) for rows in models(noise=1e-2))
    names = saved_pair(logits, reference)
    result, document = (
        run(*names, "--dtype", "bfloat16"),
        json.loads(run(*names, "--dtype", "bfloat16", "--json").stdout),
    )
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[:3] == [
        "logits.npy: logits, float32, taken as bfloat16",
        "reference.npy: reference logits, float32",
        "7 classes, 400 examples, of which 400 are compared",
    ]
    columns = [document[name] for name in ("kl", "js", "usual_kl")]
    names = {"mean": "mean", "99.9th percentile": "percentile_99_9", "largest": "largest"}
    for words, name in names.items():
        assert " ".join([words, *(f"{column[name]:.4e}" for column in columns)]) in lines
    assert f"negative {document['usual_kl']['negative']}" in lines
    assert f"off by more than 1 % {document['usual_kl']['off']}" in lines
    same = document["same_class"]
    assert f"Most probable class: the same in {same['count']} of 400 examples, {100 * same['share']:.2f} %" in lines
    first = document["worst"][0]
    guesses = [first["reference_logits"], first["logits"]]
    shown = [f"{guess['class']} {guess['probability']:.4f}" for guess in guesses]
    assert " ".join([str(first["index"][0]), f"{first['kl']:.4e}", f"{first['js']:.4e}", *shown]) in lines
    assert document["advice"] == " ".join(lines[-2:])
    assert document["advice"].startswith("Compute KL with stable_softmax.softmax_kl_divergence: the usual form is off ")


def test_share_of_all_but_one_example_is_not_rounded_to_all():
    logits, reference = np.zeros((30_000, 2)), np.zeros((30_000, 2))
    logits[:, 0] = reference[:, 0] = 1
    logits[7, 1] = 2
    assert "the same in 29,999 of 30,000 examples, 99.99 %" in run(*saved_pair(logits, reference)).stdout


def test_json_has_these_keys_and_no_others():
    _, document = compared(*everything())
    assert list(document) == [
        *("version", "logits", "reference_logits", "where", "axis", "dtype", "working_dtype", "examples", "classes"),
        *("compared", "kl", "js", "usual_kl", "same_class", "found", "worst", "checked"),
        *("findings", "notes", "advice"),
    ]
    assert list(document["logits"]) == list(document["reference_logits"]) == ["name", "shape", "dtype"]
    figures = ["examples", "mean", "median", "percentile_90", "percentile_99", "percentile_99_9", "largest"]
    assert list(document["kl"]) == list(document["js"]) == figures
    assert list(document["usual_kl"]) == [*figures, "negative", "off"]
    assert all(list(found) == ["count", "first"] for found in document["found"].values())
    assert all(list(one) == ["index", "kl", "js", "logits", "reference_logits"] for one in document["worst"])


def test_index_of_several_dimensions_is_written_as_one():
    logits = np.zeros((2, 3, 4))
    logits[1, :, 2] = np.nan
    _, document = compared(logits, np.zeros((2, 3, 4)), "--axis", 1)
    assert document["findings"] == ["rows of the logits with NaN: 1 (at (1, 2))"]


@pytest.mark.parametrize(("kind", "signature"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_plot_is_written_in_the_format_of_its_name(folder, kind, signature):
    path = folder / f"plot.{kind}"
    assert run(*saved_pair(*models()), "--plot", path).exit_code == SOUND
    assert path.read_bytes().startswith(signature)


def test_plot_shows_the_same_examples_in_both_forms_by_their_rank():
    logits, reference = (rows.astype(np.float32) for rows in models(20_000))
    reference[0] = logits[0]
    pair = opened_pair(*saved_pair(logits, reference))
    tally = Tally(pair)
    for block in pair.blocks():
        tally.add(block)
    panel, strip = Figure().subplots(2, 1, sharex=True)
    _plot.fill(panel, strip, tally)
    usual, ours = ([*panel.lines[i].get_xdata(), *strip.lines[i].get_xdata()] for i in range(2))
    assert sorted(usual) == sorted(ours)
    assert 100 < len(ours) <= 300
    assert min(ours) == 0.5 / 20_000
    assert max(ours) == 1 - 0.5 / 20_000
    assert list(strip.lines[1].get_xdata()) == [0.5 / 20_000]
    assert np.all(np.diff(panel.lines[1].get_ydata()) >= 0)
    assert np.all(panel.lines[0].get_ydata() > 0)
    assert panel.get_yscale() == "log"
    assert panel.lines[0].get_marker() != panel.lines[1].get_marker()


def test_page_is_one_file_that_asks_for_no_other():
    logits, reference = models()
    np.save("logits&<.npy", logits)
    np.save("reference.npy", reference)
    arguments = "logits&<.npy", "reference.npy", "--html", "x.html"
    assert run(*arguments).exit_code == SOUND
    page = Path("x.html").read_text()
    assert "logits&amp;&lt;.npy" in page
    assert "<title>stable-softmax compare</title>" in page
    assert page.count("<svg ") == page.count("</svg>") == 1
    assert all(address.startswith("#") for address in re.findall(r"(?:src|href)=\"([^\"]*)\"", page))
    assert "<script" not in page
    run(*arguments)
    assert Path("x.html").read_text() == page


def test_help_names_the_command():
    assert "compare" in command_runs.run("--help").output
