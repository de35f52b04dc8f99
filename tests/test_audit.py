"""The command that tells what the usual form of the loss makes of a model's own logits."""

import io
import json
import math
import os
import re
import subprocess
import sys
import tracemalloc
import zipfile
from functools import partial
from pathlib import Path

import command_runs
import ml_dtypes
import numpy as np
import pytest
import zarr
from command_runs import UNUSABLE
from flint import arb, ctx
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.figure import Figure
from safetensors.numpy import save_file
from stored_arrays import KINDS, half_written, saved
from typer.testing import CliRunner

from stable_softmax import softmax
from stable_softmax._commands import app
from stable_softmax.audit import _examples, _plot
from stable_softmax.audit._tally import Offset, Tally
from stable_softmax.command_line import blocks, files, output
from stable_softmax.reference import bounds

pytestmark = [pytest.mark.only_backends("numpy"), pytest.mark.covering, pytest.mark.installed]

SOUND, FINDINGS, INTERRUPTED = 0, 1, 130


run, refused = partial(command_runs.run, "audit"), partial(command_runs.refused, "audit")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def audited(logits, labels, *options):
    """Save and audit arrays; return the exit code and the document."""
    np.save("logits.npy", logits)
    np.save("labels.npy", labels)
    result = run("logits.npy", "labels.npy", "--json", *options)
    return result.exit_code, json.loads(result.stdout, parse_constant=pytest.fail)


def model(examples=400, classes=7, scale=8, seed=0):
    """Return logits and labels of a model that is right more often than not."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, examples)
    logits = rng.normal(size=(examples, classes))
    logits[np.arange(examples), labels] += rng.gamma(2, scale, examples)
    return logits, labels


def exact_loss(row, label):
    with ctx.workprec(400):
        total = sum(((arb(float(z)) - arb(float(row[label]))).exp() for z in row), arb(0))
        return float(total.log())


def usual_loss(row, label):
    shifted = row - row.max()
    return np.log(np.exp(shifted).sum()) - shifted[label]


# What it counts


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_counts_are_those_of_an_independent_count(name):
    logits, labels = model(scale=12)
    logits = logits.astype(name)
    code, document = audited(logits, labels)
    working = logits.astype("float64" if name == "float64" else "float32")
    pairs = list(zip(working, labels, strict=True))
    exact = np.asarray([exact_loss(*pair) for pair in pairs])
    usual = np.asarray([usual_loss(*pair) for pair in pairs])
    at_label = np.asarray([np.exp(row - row.max())[label] / np.exp(row - row.max()).sum() for row, label in pairs])
    leads = np.asarray([row[label] - np.delete(row, label).max() for row, label in pairs])
    assert code == FINDINGS
    assert document["examples"] == document["measured"] == 400
    assert document["classes"] == 7
    assert document["mean_loss"]["usual"] == pytest.approx(usual.mean(), rel=1e-6)
    errors = np.abs(usual - exact)[is_off(usual, exact)]
    assert document["mean_loss"]["error_share"] == pytest.approx(errors.sum() / exact.sum(), rel=1e-3)
    assert document["mean_loss"]["stable_softmax"] == pytest.approx(exact.mean(), rel=1e-6)
    gradients = at_label - 1, np.expm1(-exact)
    for found, (low, high) in zip(document["leads"], LEADS, strict=True):
        within = (leads >= low) & (leads < high)
        assert found == {
            "from": None if low == -np.inf else low,
            "to": None if high == np.inf else high,
            "examples": within.sum(),
            "loss_zero": (usual[within] == 0).sum(),
            "loss_off": is_off(usual, exact)[within].sum(),
            "gradient_zero": (gradients[0][within] == 0).sum(),
            "gradient_off": is_off(*gradients)[within].sum(),
        }


LEADS = [(-np.inf, 0), (0, 5), (5, 10), (10, 20), (20, 40), (40, np.inf)]


def is_off(values, reference):
    return np.abs(values - reference) > 0.01 * np.abs(reference)


def test_worst_examples_have_their_exact_losses():
    logits, labels = model()
    logits = logits.astype(np.float32)
    _, document = audited(logits, labels)
    worst = document["worst"]
    assert len(worst) == 10
    for example in worst:
        (index,) = example["index"]
        row, label = logits[index], labels[index]
        assert example["label"] == label
        assert example["lead"] == pytest.approx(row[label] - np.delete(row, label).max())
        assert example["usual"] == pytest.approx(usual_loss(row, label))
        assert example["exact"] == pytest.approx(exact_loss(row, label), rel=1e-15)
    losses = {i: exact_loss(logits[i], labels[i]) for i in range(len(labels)) if usual_loss(logits[i], labels[i]) == 0}
    lost_wholly = [example["exact"] for example in worst if example["usual"] == 0]
    assert lost_wholly == sorted(losses.values(), reverse=True)[: len(lost_wholly)]
    assert len(lost_wholly) > 5


def test_unsure_predictions_are_sound():
    rng = np.random.default_rng(0)
    code, document = audited(rng.normal(size=(50, 4)), rng.integers(0, 4, 50))
    assert code == SOUND
    assert document["findings"] == document["notes"] == document["worst"] == []
    assert document["advice"] == "The usual form serves for these logits."


def test_what_cannot_be_measured_is_counted_and_left_out():
    logits, labels = np.zeros((9, 3)), np.asarray([0, 1, 2, 0, 1, 2, 3, -1, -100], dtype=np.int16)
    logits[1, 0] = np.nan
    logits[2, 0] = np.inf
    logits[3] = -np.inf
    logits[4, 0] = -np.inf
    logits[5, 2] = -np.inf
    logits[8] = np.nan  # which is ignored
    code, document = audited(logits, labels, "--ignore-index", -100)
    found = {kind: [at["index"] for at in places["first"]] for kind, places in document["found"].items()}
    assert code == FINDINGS
    assert found == {
        "ignored": [[8]],
        "label_out_of_range": [[6], [7]],
        "nan": [[1]],
        "positive_infinity": [[2]],
        "all_negative_infinity": [[3]],
        "some_negative_infinity": [[4], [5]],
        "infinite_loss": [[5]],
        "loss_below_range": [],
        "like_probabilities": [],
    }
    assert [at["label"] for at in document["found"]["label_out_of_range"]["first"]] == [3, -1]
    assert all(len(places["first"]) == places["count"] for places in document["found"].values())
    assert document["measured"] == 2
    assert document["mean_loss"]["stable_softmax"] == pytest.approx((np.log(3) + np.log(2)) / 2)
    assert document["findings"] == [
        "labels outside of [0, 3): 2 (3 at 6, -1 at 7)",
        "rows with NaN: 1 (first at 1)",
        "rows with +inf: 1 (first at 2)",
        "rows of nothing but -inf: 1 (first at 3)",
        "examples with an infinite loss: 1 (first at 5)",
    ]
    assert document["notes"] == [
        "ignored examples: 1",
        "rows with some -inf, which are probabilities of 0: 2",
    ]
    assert document["advice"].startswith("Look first for what is wrong with logits and labels themselves")


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        ([0, -100, -100], "(-100 at 1, -100 at 2); if that is padding, --ignore-index -100 leaves it out"),
        ([3, 1, 2], "(3 at 0); they count from 0: subtract 1 from all that count from 1"),
        ([0, -100, 3], "(-100 at 1, 3 at 2)"),
    ],
)
def test_labels_that_are_out_of_range_alike_have_a_remedy(labels, hint):
    _, document = audited(np.zeros((3, 3)), np.asarray(labels))
    assert document["findings"][0].endswith(hint)


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "float32"])
def test_logits_beyond_the_range_are_infinite_without_a_warning(precision):
    logits = np.asarray([[0, -1e300, 0], [0, 1, 1e300]])
    _, document = audited(logits, np.asarray([0, 0]), "--dtype", precision)
    assert document["found"]["some_negative_infinity"]["count"] == document["found"]["positive_infinity"]["count"] == 1


def test_infinities_of_rounding_are_said_to_be():
    logits, labels = np.asarray([[1e6, 0], [0, 2]], np.float32), np.asarray([1, 1])
    _, document = audited(logits, labels, "--dtype", "float16")
    assert document["findings"] == ["rows with +inf once rounded to float16: 1 (first at 0)"]


def test_only_the_first_of_many_are_named_and_all_counted(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 6)
    _, document = audited(np.zeros((40, 3)), np.arange(40))
    found = document["found"]["label_out_of_range"]
    assert found["count"] == 37
    assert found["first"] == [{"index": [i], "label": i} for i in range(3, 8)]


def test_unsigned_and_narrow_labels_are_compared_as_numbers():
    for labels in (np.asarray([0, 255], np.uint8), np.asarray([0, 2**64 - 1], np.uint64)):
        _, document = audited(np.zeros((2, 3)), labels, "--ignore-index", -1)
        assert document["found"]["ignored"]["count"] == 0
        assert document["found"]["label_out_of_range"]["first"] == [{"index": [1], "label": int(labels[1])}]
    code, _ = audited(np.zeros((1, 300)), np.asarray([127], np.int8))
    assert code == SOUND


@pytest.mark.parametrize(("precision", "lead"), [("float32", 200), ("float64", 800)])
def test_loss_that_no_form_can_hold_is_lost_where_a_wider_dtype_holds_it(precision, lead):
    code, document = audited(np.asarray([[lead, 0]], precision), np.asarray([0]))
    assert document["notes"] == ["losses that are too small for the dtype, in any form: 1"]
    row = document["leads"][-1]
    if precision == "float64":
        assert code == SOUND
        assert row["loss_zero"] == row["gradient_off"] == 0
    else:
        assert code == FINDINGS
        assert row["loss_zero"] == row["loss_off"] == row["gradient_zero"] == row["gradient_off"] == 1
        assert document["advice"].startswith("Convert the logits to float64")


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16"])
def test_probabilities_are_found_and_their_logarithms_are_not(name):
    logits, labels = model(300, 40, scale=2)
    probabilities = softmax(logits)
    code, document = audited(probabilities, labels, "--dtype", name)
    assert code == FINDINGS
    expected = "rows that look like probabilities, with the sum 1: 300 of 300; save what goes into the softmax"
    assert document["findings"][0] == expected
    assert document["advice"].startswith("Look first for what is wrong with logits and labels themselves")
    for sound in (np.log(probabilities), logits, 100 * probabilities):
        _, document = audited(sound, labels, "--dtype", name)
        assert document["found"]["like_probabilities"]["count"] == 0


def test_few_rows_may_look_like_probabilities():
    code, document = audited(np.asarray([[1.0, 0], [1, 2], [3, 2], [0, 5]]), np.zeros(4, int))
    assert code == SOUND
    assert document["found"]["like_probabilities"]["count"] == 1
    code, _ = audited(np.ones((4, 1)), np.zeros(4, int))
    assert code == SOUND


def test_findings_that_fail_are_chosen():
    lost, unsound = np.asarray([[40.0, 0], [1, 0]]), np.asarray([[np.nan, 0], [1, 0]])
    codes = [
        audited(logits, np.zeros(2, int), "--fail-on", kind)[0]
        for logits in (lost, unsound)
        for kind in ("any", "inputs", "none")
    ]
    assert codes == [FINDINGS, SOUND, SOUND, FINDINGS, FINDINGS, SOUND]


# Dtypes and offsets


def test_logits_are_rounded_to_the_dtype_that_is_asked_for():
    logits, labels = model(20)
    rounded = {name: logits.astype(name) for name in ("float16", "float32", "float64")}
    rounded["bfloat16"] = logits.astype(ml_dtypes.bfloat16)
    for name, values in rounded.items():
        _, asked = audited(logits, labels, "--dtype", name)
        expected = [exact_loss(row, label) for row, label in zip(values.astype(float), labels, strict=True)]
        assert asked["mean_loss"]["stable_softmax"] == pytest.approx(np.mean(expected), rel=1e-6)
        assert asked["dtype"] == name
        assert asked["logits"]["dtype"] == "float64"


@given(arrays(np.float32, st.integers(0, 50), elements=st.floats(width=32)))
def test_rounding_to_bfloat16_is_that_of_ml_dtypes(values):
    with np.errstate(all="ignore"):
        expected = values.astype(ml_dtypes.bfloat16).astype(np.float32)
    rounded = bounds.rounded(values, "bfloat16").astype(np.float32)
    np.testing.assert_array_equal(rounded, expected)
    np.testing.assert_array_equal(np.signbit(rounded[rounded == 0]), np.signbit(expected[rounded == 0]))


@pytest.mark.parametrize("stored", [np.float16, np.int8, np.int64, ">f4", ">f8"])
def test_every_stored_dtype_can_be_rounded_to_bfloat16(stored):
    values = np.asarray([0, 1, -3, 7, 127, 101], stored)
    np.testing.assert_array_equal(
        bounds.rounded(values, "bfloat16"), values.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)
    )


def test_bfloat16_is_not_rounded_twice_from_float64():
    value = 1 + 2.0**-8 + 2.0**-40  # just above the middle of two numbers, which float32 rounds to the middle
    assert bounds.rounded(np.asarray([value]), "bfloat16") == 1 + 2.0**-7


def test_logits_beyond_the_range_of_the_dtype_are_infinite():
    code, document = audited(np.asarray([[1e5, 0.0]]), np.asarray([0]), "--dtype", "float16")
    assert code == FINDINGS
    assert document["found"]["positive_infinity"]["count"] == 1


def test_integers_and_other_byte_orders_are_taken():
    values = [[1, 2], [5, 0]]
    for stored in ("int8", "uint64", ">f4", ">i2"):
        code, document = audited(np.asarray(values, stored), np.asarray([0, 1], ">i4"))
        assert code == SOUND
        assert document["mean_loss"]["stable_softmax"] == pytest.approx((np.log1p(np.e) + np.log1p(np.exp(5))) / 2)
        assert document["dtype"] == ("float32" if stored == ">f4" else "float64")


def test_coarse_numbers_at_the_largest_logit_are_found():
    logits = np.asarray([[0.5, 0.0], [15.5, 15], [16.0, 15], [-40.0, -41]], np.float16)
    code, document = audited(logits, np.asarray([1, 1, 1, 1]))
    assert code == FINDINGS
    assert document["largest_logits"] == {
        "smallest": -40.0,
        "mean": pytest.approx(-2),
        "largest": 16.0,
        "spacing": float(np.spacing(np.float16(40))),
        "spacing_dtype": "float16",
        "coarse_rows": 2,
    }
    assert document["findings"] == [
        "rows where float16 numbers at the largest logit are more than 0.01 apart: 2; compute the last layer in a "
        "wider dtype, or subtract the row's largest logit before rounding to float16"
    ]
    assert document["advice"].startswith("Mend the logits before the loss")


@given(st.floats(2.0**-10, 2.0**100, width=32))
def test_spacing_is_that_of_numpy(top):
    offset = Offset()
    offset.add(np.asarray([-top], np.float32), "float32")
    assert offset.spacing == np.spacing(np.float32(top))


def test_wider_dtype_does_not_mend_what_the_file_has_lost():
    logits = np.asarray([[100.0, 99.0]], np.float16)
    _, document = audited(logits, np.asarray([1]), "--dtype", "float32")
    assert document["largest_logits"]["spacing_dtype"] == "float16"
    _, document = audited(logits.astype(np.float64), np.asarray([1]), "--dtype", "float32")
    assert document["largest_logits"]["spacing_dtype"] == "float32"


# Shapes and blocks


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -3])
@pytest.mark.parametrize("entries", [1, 7, 40, 10**6])
@pytest.mark.parametrize("order", [np.ascontiguousarray, np.asfortranarray])
def test_every_axis_and_block_size_gives_the_same(monkeypatch, axis, entries, order):
    rows, labels = model(60, 4, scale=20)
    labels = labels.reshape(3, 4, 5)
    labels[1, 2, 3] = 9
    logits = order(np.moveaxis(rows.reshape(3, 4, 5, 4), -1, axis))
    _, whole = audited(rows, labels.reshape(-1))
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", entries)
    _, document = audited(logits, labels, "--axis", axis)
    assert document["mean_loss"] == pytest.approx(whole["mean_loss"])
    assert document["leads"] == whole["leads"]
    assert document["found"]["label_out_of_range"]["first"] == [{"index": [1, 2, 3], "label": 9}]
    assert document["axis"] == axis % 4
    ids = [int(np.ravel_multi_index(example["index"], labels.shape)) for example in document["worst"]]
    assert ids == [example["index"][0] for example in whole["worst"]]


def test_one_example_has_labels_without_dimensions():
    code, document = audited(np.asarray([0.0, 30.0, 0.0]), np.asarray(1), "--dtype", "float32")
    assert code == FINDINGS
    assert document["examples"] == 1
    assert document["worst"][0]["index"] == []
    assert run("logits.npy", "labels.npy", "--dtype", "float32").exit_code == FINDINGS


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4), (2, 3, 0)])
def test_no_examples_are_sound(shape):
    code, document = audited(np.zeros(shape), np.zeros((shape[0], *shape[2:]), int), "--axis", 1)
    assert code == SOUND
    assert document["examples"] == document["measured"] == 0
    assert document["mean_loss"] == {"usual": None, "stable_softmax": None, "error_share": None}
    assert document["largest_logits"]["largest"] is None
    assert document["advice"] == "There is no loss to measure."
    result = run("logits.npy", "labels.npy", "--axis", 1, "--plot", "plot.png")
    assert result.exit_code == SOUND, result.output


def test_one_class_is_sound():
    code, document = audited(np.asarray([[3.0], [1e6]]), np.asarray([0, 0]))
    assert code == SOUND
    assert document["mean_loss"] == {"usual": 0, "stable_softmax": 0, "error_share": None}
    assert document["leads"][-1]["examples"] == 2


def test_memory_is_bounded_whatever_the_file_holds(monkeypatch):
    entries = 1 << 16
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", entries)
    rows = 200_000
    np.lib.format.open_memmap("logits.npy", mode="w+", dtype=np.float32, shape=(rows, 50))  # 40 MB, sparse
    np.save("labels.npy", np.zeros(rows, np.int8))
    opened = _examples.paired(files.opened("logits.npy"), files.opened("labels.npy"), -1, None)
    for block in opened.blocks():
        Tally(opened).add(block)  # the library keeps some memory from the first call on
        break
    tracemalloc.start()
    tally = Tally(opened)
    for block in opened.blocks():
        assert block.logits.size <= entries
        tally.add(block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tally.totals["examples"] == rows
    assert peak < 30 * entries * 4  # 8 MB


@pytest.mark.skipif(sys.platform != "linux", reason="limits what a process may hold without its mapped files")
def test_file_may_be_larger_than_memory():
    shape = (1 << 20, 512)
    with open("logits.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + 2 * math.prod(shape))
    with open("labels.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|i1", "fortran_order": False, "shape": shape[:1]})
        file.truncate(file.tell() + shape[0])
    code = (
        "import resource\n"
        "from itertools import islice\n"
        "from stable_softmax.audit import _examples, _tally\n"
        "from stable_softmax.command_line import files\n"
        "examples = _examples.paired(files.opened('logits.npy'), files.opened('labels.npy'), -1, None)\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (900 << 20, 900 << 20))\n"
        "tally = _tally.Tally(examples)\n"
        "[tally.add(block) for block in islice(examples.blocks(), 6)]\n"
        "print(tally.totals['examples'])\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(process.stdout) == 6 * blocks.BLOCK_ENTRIES // 512


# Formats


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_holds_logits(monkeypatch, kind):
    logits, labels = model(90, 5)
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 100)
    _, expected = audited(logits, labels)
    result = run(saved(kind, logits), "labels.npy", "--json")
    document = json.loads(result.stdout)
    for name in ("mean_loss", "largest_logits"):  # blocks differ, and with them the rounding of sums
        assert document.pop(name) == pytest.approx(expected.pop(name))
    assert document | {"logits": None} == expected | {"logits": None}


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_holds_labels(kind):
    logits, labels = model(90, 5)
    _, expected = audited(logits, labels)
    document = json.loads(run("logits.npy", saved(kind, labels), "--json").stdout)
    assert document | {"labels": None} == expected | {"labels": None}


@pytest.mark.parametrize("kind", ["npy", "compressed", "safetensors", "zarr"])
def test_every_format_holds_no_examples(kind):
    if kind == "safetensors":
        save_file({"x": np.zeros((0, 3))}, "x.safetensors")
    name = "x.safetensors" if kind == "safetensors" else saved(kind, np.zeros((0, 3)))
    np.save("labels.npy", np.zeros(0, int))
    assert run(name, "labels.npy").exit_code == SOUND


def test_labels_without_dimensions_in_other_formats():
    np.save("logits.npy", np.zeros(3))
    save_file({"y": np.asarray(1)}, "y.safetensors")
    zarr.create_array("y.zarr", data=np.asarray(1))
    assert run("logits.npy", "y.safetensors").exit_code == run("logits.npy", "y.zarr").exit_code == SOUND


def test_safetensors_hold_bfloat16():
    logits, labels = model(50, 5)
    logits = logits.astype(ml_dtypes.bfloat16)
    _, expected = audited(logits.astype(np.float32), labels)
    save_file({"logits": logits}, "x.safetensors")
    document = json.loads(run("x.safetensors", "labels.npy", "--json").stdout)
    assert document["dtype"] == document["logits"]["dtype"] == "bfloat16"
    assert document["mean_loss"] == expected["mean_loss"]
    assert document["largest_logits"]["spacing"] == 2**16 * expected["largest_logits"]["spacing"]


def test_stored_members_are_mapped_and_compressed_ones_loaded():
    array = np.arange(12.0).reshape(3, 4)
    np.savez("stored.npz", other=np.arange(5), array=np.asfortranarray(array))
    np.savez_compressed("compressed.npz", array=array)
    stored, compressed = files.opened("stored.npz::array"), files.opened("compressed.npz::array")
    assert isinstance(stored.values, np.memmap)
    assert not isinstance(compressed.values, np.memmap)
    np.testing.assert_array_equal(stored.values, array)
    np.testing.assert_array_equal(compressed.values, array)
    assert isinstance(files.opened(saved("npy", array)).values, np.memmap)


def test_blocks_end_where_chunks_do(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 40)
    zarr.create_array("x.zarr", data=np.zeros((50, 2)), chunks=(8, 1))
    np.save("labels.npy", np.zeros(50, int))
    examples = _examples.paired(files.opened("x.zarr"), files.opened("labels.npy"), 1, None)
    assert [block.positions[0] for block in examples.blocks()] == [0, 16, 32, 48]


def test_chunks_that_are_not_stored_are_a_finding_of_logits_and_a_note_of_labels():
    half_written("x.zarr", np.random.default_rng(0).normal(size=(40, 3)), (10, 3))
    half_written("y.zarr", np.ones(40, int), (4,))
    result = run("x.zarr", "y.zarr", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == FINDINGS
    assert document["findings"] == ["chunks of the logits that are not stored, but filled in: 2"]
    assert document["notes"] == ["chunks of the labels that are not stored, but filled in: 5"]


def test_name_with_two_colons_of_a_file_that_is_there():
    np.save("x::y.npy", np.zeros((2, 2)))
    np.save("labels.npy", np.zeros(2, int))
    assert run("x::y.npy", "labels.npy").exit_code == SOUND


def test_names_with_two_colons_in_a_file():
    array = np.zeros((2, 2))
    np.savez("x::y.npz", **{"a::b": array, "c": array[0]})
    np.savez("x", **{"a::b": array, "c": array[0]})
    np.save("labels.npy", np.zeros(2, int))
    for name in ("x.npz::a::b", "x::y.npz::a::b"):
        assert run(name, "labels.npy").exit_code == SOUND
    assert refused("x.npz::a::d", "labels.npy") == "x.npz::a::d: holds no array 'a::d', but a::b, c"
    assert refused("y.npz::a::b", "labels.npy") == "y.npz::a::b: no such file"


# What cannot be used


@pytest.fixture
def sound():
    np.save("logits.npy", np.zeros((4, 3)))
    np.save("labels.npy", np.zeros(4, int))


def damaged(path, keep):
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[:keep])
    return path


class Trap:
    """Leaves a mark where it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("unpickled"),)


def pickled(path):
    np.save(path, np.asarray([[Trap()]], object), allow_pickle=True)
    return path


def pickle_in_npz(save):
    save("x.npz", x=np.asarray([[Trap()]], object))
    return "x.npz"


def raw(path, content):
    Path(path).write_bytes(content)
    return path


def npz_with(name, content):
    with zipfile.ZipFile("x.npz", "w") as archive:
        archive.writestr(name, content)
    return "x.npz"


def broken_zarr(file, content):
    zarr.create_array("x.zarr", data=np.ones((4, 3)))
    raw(f"x.zarr/{file}", content)
    return "x.zarr"


def float8():
    save_file({"x": np.zeros((4, 3), ml_dtypes.float8_e4m3fn)}, "x.safetensors")
    return "x.safetensors"


def encrypted():
    """Claim that a stored member is encrypted."""
    content = bytearray(Path(npz_with("x.npy", b"x")).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    content[6] |= 1
    return raw("x.npz", bytes(content))


def folder_of(*names):
    Path("x").mkdir()
    for name in names:
        Path("x", name).touch()
    return "x"


BAD_FILES = {
    "missing": (lambda: "nowhere.npy", "no such file"),
    "missing with a member": (lambda: "nowhere.npz::x", "no such file"),
    "a folder": (lambda: folder_of("x.npy"), "a folder that is neither a Zarr array nor a Zarr group"),
    "empty": (lambda: raw("x.npy", b""), "the file is empty"),
    "text": (lambda: raw("x.csv", b"1,2,3"), r"not an array: .* is accepted, and nothing is unpickled"),
    "a pickle": (lambda: pickled("x.npy"), "holds pickled Python objects, which are never loaded"),
    "a pickle, stored": (lambda: pickle_in_npz(np.savez), "holds pickled Python objects, which are never loaded"),
    "a pickle, compressed": (lambda: pickle_in_npz(np.savez_compressed), "Object arrays cannot be loaded"),
    "truncated": (lambda: damaged(saved("npy", np.zeros((4, 3))), -1), "truncated: 96 bytes .* and 95 are there"),
    "truncated header": (lambda: damaged(saved("npy", np.zeros((4, 3))), 40), "EOF"),
    "truncated archive": (lambda: damaged(saved("npz", np.zeros((4, 3))).split("::")[0], 200), "not a zip file"),
    "truncated tensors": (lambda: damaged(saved("safetensors", np.zeros((4, 3))).split("::")[0], -1), "header"),
    "later version": (lambda: raw("x.npy", b"\x93NUMPY\x09\x00xx"), "not 1.0 or 2.0"),
    "truncated member": (lambda: npz_with("x.npy", b"\x93NUMPY\x01\x00"), "EOF"),
    "encrypted member": (encrypted, "encrypted"),
    "no array": (lambda: npz_with("x.txt", b"1"), "holds no array"),
    "a file of PyTorch's": (lambda: str(Path(npz_with("data.pkl", b"1")).rename("x.pt")), "are pickled: save with"),
    "several arrays": (lambda: saved("npz", np.zeros((4, 3)))[:5], "choose one by FILE::NAME: some, name"),
    "several tensors": (lambda: saved("safetensors", np.zeros((4, 3)))[:-6], "choose one by FILE::NAME: name, some"),
    "several in a group": (lambda: saved("group", np.zeros((4, 3)))[:6], "choose one by FILE::NAME: inner/name, some"),
    "another name": (lambda: saved("npz", np.zeros((4, 3)))[:5] + "::z", "holds no array 'z', but some, name"),
    "a name in .npy": (lambda: saved("npy", np.zeros((4, 3))) + "::z", "holds one array, without a name"),
    "a name in an array": (lambda: saved("zarr", np.zeros((4, 3))) + "::z", "has no names in it"),
    "broken metadata": (lambda: broken_zarr("zarr.json", b"{"), "Expecting property name"),
    "8 bits": (float8, "the dtype F8_E4M3 is not supported"),
}


@pytest.mark.parametrize("case", BAD_FILES)
@pytest.mark.parametrize("role", ["logits", "labels"])
@pytest.mark.usefixtures("sound")
def test_file_that_cannot_be_used_is_one_line(case, role):
    make, reason = BAD_FILES[case]
    name = make()
    line = refused(name, "labels.npy") if role == "logits" else refused("logits.npy", name)
    assert line.startswith(f"{name}: ")
    assert re.search(reason, line), line
    assert not Path("unpickled").exists()


@pytest.mark.usefixtures("sound")
def test_broken_chunk_is_one_line():
    assert refused(broken_zarr("c/0/0", b"zz"), "labels.npy").startswith("x.zarr: ")


@pytest.mark.usefixtures("sound")
def test_error_without_a_message_is_named(monkeypatch):
    def fails(*_):
        raise MemoryError

    monkeypatch.setattr(files, "_mapped", fails)
    assert refused("logits.npy", "labels.npy") == "logits.npy: MemoryError"


@pytest.mark.usefixtures("sound")
def test_errors_have_no_addresses(monkeypatch):
    def fails(*_):
        raise ValueError("bad <reader object at 0x7F00aa> here")

    monkeypatch.setattr(files, "_mapped", fails)
    assert refused("logits.npy", "labels.npy") == "logits.npy: bad <reader object> here"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe of POSIX")
@pytest.mark.usefixtures("sound")
def test_pipes_are_refused_without_waiting():
    os.mkfifo("pipe.npy")
    expected = "pipe.npy: neither a regular file nor a folder: save a pipe's content in a file first"
    assert refused("pipe.npy", "labels.npy") == refused("logits.npy", "pipe.npy") == expected


@pytest.mark.usefixtures("sound")
def test_swapped_files_are_said_to_be():
    line = "labels.npy and logits.npy are swapped: pass the logits first, then the labels"
    assert refused("labels.npy", "logits.npy") == line
    np.save("integers.npy", np.zeros((4, 3), int))
    assert refused("labels.npy", "integers.npy").endswith("; are the files swapped? The logits come first")


@pytest.mark.usefixtures("sound")
def test_long_lists_of_names_are_cut():
    np.savez("x.npz", **{f"n{i}": np.zeros(1) for i in range(30)})
    assert refused("x.npz", "labels.npy").endswith("n18, n19, ...")


BAD_DTYPES = {
    "logits": [np.complex64, np.bool, "S3", "datetime64[s]", [("a", "f4")]],
    "labels": [np.complex64, np.bool, np.float32, "S3", "datetime64[s]", [("a", "i4")]],
}


@pytest.mark.parametrize(("role", "stored"), [(role, stored) for role in BAD_DTYPES for stored in BAD_DTYPES[role]])
@pytest.mark.usefixtures("sound")
def test_dtypes_that_are_refused(role, stored):
    np.save("x.npy", np.zeros((4, 3) if role == "logits" else 4, stored))
    name = str(np.load("x.npy").dtype)
    line = refused("x.npy", "labels.npy") if role == "logits" else refused("logits.npy", "x.npy")
    assert line.startswith(f"x.npy: {role} must be ")
    assert line.endswith(f", not {name}")


@pytest.mark.usefixtures("sound")
def test_bfloat16_that_numpy_has_saved_is_refused_with_a_hint():
    np.save("x.npy", np.zeros((4, 3), ml_dtypes.bfloat16))
    assert refused("x.npy", "labels.npy").endswith("not |V2; NumPy's files do not keep bfloat16, safetensors do")


@pytest.mark.usefixtures("sound")
def test_extended_precision_is_refused():
    np.save("x.npy", np.zeros((4, 3), np.longdouble))
    if np.load("x.npy").dtype != np.float64:  # where the two differ
        assert "logits must be float16, bfloat16, float32, float64 or integers, not " in refused("x.npy", "labels.npy")


def test_shapes_that_disagree():
    np.save("logits.npy", np.zeros((4, 3, 5)))
    np.save("labels.npy", np.zeros((4, 5), int))
    np.save("other.npy", np.zeros((4, 5, 1), int))
    assert refused("logits.npy", "labels.npy") == (
        "labels.npy: the labels of logits (4, 3, 5) must have the shape (4, 3), not (4, 5); they would fit --axis 1"
    )
    assert refused("logits.npy", "other.npy").endswith("must have the shape (4, 3), not (4, 5, 1)")
    assert refused("labels.npy", "labels.npy").endswith(
        "must have the shape (4,), not (4, 5); an example has a logit for each class, and one label"
    )
    assert refused("logits.npy", "labels.npy", "--axis", 3) == ("logits.npy: there is no axis 3 in the shape (4, 3, 5)")
    np.save("logits.npy", np.zeros(()))
    assert "there is no axis -1 in the shape ()" in refused("logits.npy", "labels.npy")


def test_no_classes():
    np.save("logits.npy", np.zeros((4, 0)))
    np.save("labels.npy", np.zeros(4, int))
    assert refused("logits.npy", "labels.npy") == ("logits.npy: there are no classes along axis 1 of the shape (4, 0)")


@pytest.mark.parametrize(("kind", "package"), [("safetensors", "safetensors"), ("zarr", "zarr")])
@pytest.mark.usefixtures("sound")
def test_missing_reader_is_one_line_that_says_what_to_install(monkeypatch, kind, package):
    name = saved(kind, np.zeros((4, 3)))
    monkeypatch.setitem(sys.modules, package, None)
    line = refused(name, "labels.npy")
    assert line.endswith(f'needs {package}: python -m pip install "stable-softmax[files]"')


@pytest.mark.usefixtures("sound")
def test_missing_matplotlib_is_one_line_that_says_what_to_install(monkeypatch):
    for module in ("matplotlib", "matplotlib.backend_bases"):
        monkeypatch.setitem(sys.modules, module, None)
    line = refused("logits.npy", "labels.npy", "--plot", "x.png")
    assert line == 'a plot needs matplotlib: python -m pip install "stable-softmax[plot]"'
    assert run("logits.npy", "labels.npy", "--html", "x.html").exit_code == SOUND
    assert "<svg" not in Path("x.html").read_text()


@pytest.mark.usefixtures("sound")
def test_destinations_are_checked_before_the_work():
    assert "the name must end in .htm, .html" in refused("logits.npy", "labels.npy", "--html", "logits.npy")
    assert "the name must end in " in refused("logits.npy", "labels.npy", "--plot", "labels.npy")
    line = refused("logits.npy", "labels.npy", "--plot", "nowhere/x.png")
    assert line == "nowhere/x.png: its folder does not exist"


# Text and files


def everything():
    """Return logits and labels with everything in them that can be found."""
    logits, labels = model(3000, 5)
    logits = (logits + 1e6).astype(np.float32)
    logits[0, 0], logits[1, 0], logits[2], logits[3, labels[3]] = np.nan, np.inf, -np.inf, -np.inf
    labels[4:9], labels[9] = 1234567890123, -100
    return logits, labels


def test_text_is_narrow_and_short():
    logits, labels = everything()
    np.save("logits.npy", logits)
    np.save("labels.npy", labels)
    result = run("logits.npy", "labels.npy", "--ignore-index", -100, columns=200)
    lines = result.stdout.splitlines()
    assert result.exit_code == FINDINGS
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 55
    assert "\x1b" not in result.stdout
    np.save("logits.npy", logits[10:] - np.float32(1e6))
    np.save("labels.npy", labels[10:])
    lines = run("logits.npy", "labels.npy").stdout.splitlines()
    assert len(lines) <= 43
    assert max(map(len, lines)) <= 80


def test_text_and_json_have_the_same_figures():
    logits, labels = model(scale=12)
    np.save("logits.npy", logits)
    np.save("labels.npy", labels)
    arguments = "logits.npy", "labels.npy", "--dtype", "float32"
    result, document = run(*arguments), json.loads(run(*arguments, "--json").stdout)
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines[0] == "logits.npy: 7 classes, float64, taken as float32"
    assert lines[1] == "labels.npy: 400 examples, of which 400 are measured"
    assert f"mean loss, usual form       {document['mean_loss']['usual']:.7g}" in lines
    assert f"mean loss, stable-softmax   {document['mean_loss']['stable_softmax']:.7g}" in lines
    share = document["mean_loss"]["error_share"]
    assert f"losses that are off         have errors of {share:.2g} of the mean loss" in lines
    table = [line.split() for line in lines if line.startswith(("below 0", "0 to 5", "40 and above"))]
    for words, row in zip(table, [document["leads"][i] for i in (0, 1, 5)], strict=True):
        counts = list(row.values())[2:]
        assert words[-5:] == [str(count) if count else "-" for count in counts]
    for finding in document["findings"]:
        assert finding in lines
    assert document["advice"] in " ".join(lines[-2:])
    first = document["worst"][0]
    usual = f"{first['usual']:.3e}" if first["usual"] else "0"
    expected = [str(first["index"][0]), str(first["label"]), f"{first['lead']:.4g}", usual, f"{first['exact']:.3e}"]
    assert expected in [line.split() for line in lines]


def test_json_has_these_keys_and_no_others():
    logits, labels = everything()
    _, document = audited(logits, labels)
    assert list(document) == [
        *("version", "logits", "labels", "axis", "dtype", "ignore_index", "examples", "classes", "measured"),
        *("mean_loss", "leads", "found", "largest_logits", "worst", "findings", "notes", "advice"),
    ]
    assert list(document["logits"]) == list(document["labels"]) == ["name", "shape", "dtype"]
    assert list(document["mean_loss"]) == ["usual", "stable_softmax", "error_share"]
    counts = ["examples", "loss_zero", "loss_off", "gradient_zero", "gradient_off"]
    assert all(list(row) == ["from", "to", *counts] for row in document["leads"])
    assert all(list(found) == ["count", "first"] for found in document["found"].values())
    assert all(list(example) == ["index", "label", "lead", "usual", "exact"] for example in document["worst"])


def test_progress_is_shown_on_a_terminal_and_beside_the_result():
    np.save("logits.npy", np.zeros((4, 3)))
    np.save("labels.npy", np.zeros(4, int))
    terminal, its_other_end = os.openpty()
    command = [sys.executable, "-m", "stable_softmax", "audit", "logits.npy", "labels.npy", "--json"]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=its_other_end, timeout=60)
    shown = os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    os.close(its_other_end)
    assert "Examples" in shown
    assert "100%" in shown
    assert json.loads(result.stdout)["examples"] == 4


def test_no_progress_is_shown_where_colours_are_asked_for_without_a_terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    np.save("logits.npy", np.zeros((4, 3)))
    np.save("labels.npy", np.zeros(4, int))
    assert run("logits.npy", "labels.npy").stderr == ""


def test_index_of_several_dimensions_is_written_as_one():
    logits, labels = np.zeros((2, 3, 4)), np.zeros((2, 4), int)
    labels[1, 2] = 5
    _, document = audited(logits, labels, "--axis", 1)
    assert document["findings"] == [
        "labels outside of [0, 3): 1 (5 at (1, 2)); if that is padding, --ignore-index 5 leaves it out"
    ]


def test_names_are_printed_as_they_are():
    Path("[red]").mkdir()
    np.save("[red]/[b]x.npy", np.zeros((1, 2)))
    np.save("labels.npy", np.zeros(1, int))
    assert run("[red]/[b]x.npy", "labels.npy").stdout.startswith("[red]/[b]x.npy: ")


@pytest.mark.skipif(sys.platform != "linux", reason="names a file by bytes that are no characters")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_cannot_be_written_are_escaped(encoding):
    name = os.fsdecode(b"\xff\xc3\xa9.npy")
    np.save(name, np.zeros((4, 3)))
    np.save("labels.npy", np.zeros(4, int))
    shown = {"utf-8": "\\udcff\u00e9.npy", "ascii": "\\udcff\\xe9.npy"}[encoding]
    command = [sys.executable, "-m", "stable_softmax", "audit", name]
    options = {"capture_output": True, "env": os.environ | {"PYTHONIOENCODING": encoding}}
    process = subprocess.run([*command, "labels.npy", "--html", "x.html"], **options)
    assert process.returncode == SOUND, process.stderr
    assert process.stdout.decode(encoding).startswith(f"{shown}: ")
    assert "\\udcff\u00e9.npy" in Path("x.html").read_text(encoding="utf-8")
    process = subprocess.run([*command, "labels.npy", "--json"], **options)
    assert json.loads(process.stdout)["logits"]["name"] == name
    process = subprocess.run([*command, name], **options)
    assert process.returncode == UNUSABLE
    assert process.stderr.decode(encoding).count("\n") == 1


def test_streams_that_take_every_character_are_left_alone(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with output.one_line_errors("audit"):
        print("\u00e9")
    assert stream.getvalue() == "\u00e9\n"


SIGNATURES = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("kind", SIGNATURES)
def test_plot_is_written_in_the_format_of_its_name(folder, kind):
    logits, labels = model(scale=20)
    np.save("logits.npy", logits)
    np.save("labels.npy", labels)
    path = folder / f"plot.{kind}"
    assert run("logits.npy", "labels.npy", "--plot", path).exit_code == FINDINGS
    assert path.read_bytes().startswith(SIGNATURES[kind])


def tally_of(logits, labels):
    """Count all examples of arrays, rounded to float32."""
    np.save("logits.npy", logits)
    np.save("labels.npy", labels)
    examples = _examples.paired(files.opened("logits.npy"), files.opened("labels.npy"), -1, "float32")
    tally = Tally(examples)
    for block in examples.blocks():
        tally.add(block)
    return tally


def test_plot_shows_each_example_once_in_each_form():
    tally = tally_of(np.asarray([[1.0, 0], [30, 0], [40, 0], [50, 0], [3, -np.inf]]), np.zeros(5, int))
    panel, strip = Figure().subplots(2, 1)
    _plot.fill(panel, strip, tally)
    points = [[len(line.get_xdata()) for line in axes.lines] for axes in (panel, strip)]
    assert points == [[4, 1], [0, 3]]
    assert panel.get_yscale() == "log"
    assert panel.lines[0].get_marker() != panel.lines[1].get_marker()


def test_plot_has_the_worst_examples_of_many():
    rng = np.random.default_rng(0)
    logits, worst = rng.normal(size=(50_000, 3)), [7, 30_000, 49_999]
    logits[worst] = [[40, 0, 0], [41, 0, 0], [42, 0, 0]]
    drawn = tally_of(logits, np.zeros(50_000, int)).drawn
    assert {*worst} <= {*drawn.positions.astype(int).tolist()}
    assert len({*drawn.positions.tolist()}) == len(drawn.leads) < 1000
    assert {40.0, 41.0, 42.0} <= {*drawn.leads.tolist()}


def test_page_is_one_file_that_asks_for_no_other():
    logits, labels = model()
    np.save("logits&<.npy", logits)
    np.save("labels.npy", labels)
    arguments = "logits&<.npy", "labels.npy", "--html", "x.html"
    assert run(*arguments).exit_code == FINDINGS
    page = Path("x.html").read_text()
    assert "logits&amp;&lt;.npy" in page
    assert page.count("<svg ") == page.count("</svg>") == 1
    assert "<?xml" not in page
    assert "color-scheme: light dark" in page
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)\"", page)
    assert all(address.startswith("#") for address in addresses)
    assert "<script" not in page
    run(*arguments)
    assert Path("x.html").read_text() == page


def test_failed_write_leaves_the_old_file(folder, monkeypatch):
    np.save("logits.npy", np.zeros((4, 3)))
    np.save("labels.npy", np.zeros(4, int))
    Path("x.html").write_text("old")
    before = sorted(folder.iterdir())

    def fails(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fails)
    result = run("logits.npy", "labels.npy", "--html", "x.html")
    assert result.exit_code == UNUSABLE
    assert result.stderr == "stable-softmax audit: x.html: cannot be written: disk full\n"
    assert Path("x.html").read_text() == "old"
    assert sorted(folder.iterdir()) == before


def test_interrupted_write_leaves_the_old_file(folder, monkeypatch):
    np.save("logits.npy", np.zeros((4, 3)))
    np.save("labels.npy", np.zeros(4, int))
    Path("x.html").write_text("old")
    before = sorted(folder.iterdir())

    def interrupted(path, content):
        with path.open("wb") as file:
            file.write(content[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    result = run("logits.npy", "labels.npy", "--html", "x.html")
    assert result.exit_code == INTERRUPTED
    assert Path("x.html").read_text() == "old"
    assert sorted(folder.iterdir()) == before


@pytest.mark.skipif(os.name != "posix", reason="sends a signal of POSIX")
def test_interrupt_ends_with_130_and_no_traceback(folder):
    code = (
        "from stable_softmax.audit import _examples\n"
        "from stable_softmax.__main__ import main\n"
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a shell's background jobs do without
        "def blocks(self):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
        "    yield\n"
        "_examples.Examples.blocks = blocks\n"
        "sys.argv[1:] = ['audit', 'logits.npy', 'labels.npy', '--html', 'x.html']\n"
        "main()\n"
    )
    np.save("logits.npy", np.zeros((4, 3)))
    np.save("labels.npy", np.zeros(4, int))
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr) == (
        INTERRUPTED,
        "",
        "stable-softmax audit: interrupted\n",
    )
    assert not (folder / "x.html").exists()


# Beside the report


def test_report_is_still_what_runs_without_a_command():
    assert "Compare softmax" in CliRunner().invoke(app, ["--help"]).output
    assert "audit" in CliRunner().invoke(app, ["--help"]).output
    result = CliRunner().invoke(app, ["--backend", "numpy", "--dtype", "float64", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["cells"]
