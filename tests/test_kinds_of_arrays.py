"""What comes in may be of many kinds, and what comes out is of one: the library's own, as its functions give it."""

import json
import subprocess
import sys
from contextlib import nullcontext

import ml_dtypes
import numpy as np
import pytest

import stable_softmax
from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    hvp_softmax_crossentropy_with_logits,
    softmax_crossentropy_with_logits,
    value_and_grad_softmax_crossentropy_with_logits,
)
from stable_softmax._arguments.options import Options, loss_of

pytestmark = [pytest.mark.covering_on("numpy", "array-api-strict", "torch"), pytest.mark.versioned_on("jax")]

NORMALIZATIONS = [stable_softmax.softmax, stable_softmax.log_softmax, stable_softmax.logsumexp]
LOSSES = [softmax_crossentropy_with_logits, grad_softmax_crossentropy_with_logits]


class Subclass(np.ndarray):
    """An array that a caller derived from NumPy's."""


@pytest.mark.only_backends("numpy")
@pytest.mark.parametrize("examples", [2, 20_000])
def test_results_are_of_numpys_own_type_whatever_their_size(examples):
    z, y = np.zeros((examples, 3)).view(Subclass), np.zeros(examples, np.int64).view(Subclass)
    results = [function(z) for function in NORMALIZATIONS] + [function(z, y) for function in LOSSES]
    assert {type(result) for result in results} == {np.ndarray}


@pytest.mark.only_backends("numpy")
@pytest.mark.parametrize("examples", [2, 20_000])
def test_single_numbers_are_scalars_as_those_of_numpy(examples):
    z, y = np.zeros((examples, 3), np.float32), np.zeros(examples, np.int64)
    loss, gradient = value_and_grad_softmax_crossentropy_with_logits(z, y)
    numbers = [loss, softmax_crossentropy_with_logits(z, y, reduction="sum"), stable_softmax.logsumexp(z, axis=None)]
    numbers += [softmax_crossentropy_with_logits(z[0], y[0]), stable_softmax.softmax(z[0, 0], axis=None)]
    assert {type(number) for number in numbers} == {np.float32}
    assert json.loads(json.dumps(loss.item())) == loss
    assert len({loss}) == 1
    before = loss
    loss += 1
    assert before != loss
    assert type(gradient) is np.ndarray
    assert stable_softmax.logsumexp(z[0], keepdims=True).shape == (1,)


@pytest.mark.parametrize("function", NORMALIZATIONS, ids=lambda function: function.__name__)
def test_a_number_is_a_row_of_its_own(library, function):
    number = library.array(np.asarray(3.0))
    expected = {"softmax": 1.0, "log_softmax": 0.0, "logsumexp": 3.0}[function.__name__]
    result = function(number, axis=None)
    assert tuple(result.shape) == ()
    assert float(result) == expected
    excluded = function(number, axis=None, where=library.array(np.asarray(False)))
    assert float(excluded) == {"softmax": 0.0}.get(function.__name__, -np.inf)


def test_no_classes(library):
    for shape, axis in (((2, 0), -1), ((0, 2), 0), ((2, 0, 3), (1, 2)), ((0, 0), None), ((0,), 0)):
        z = library.array(np.zeros(shape))
        for options in ({}, {"where": library.array(np.zeros(shape, bool))}):
            for function in (stable_softmax.softmax, stable_softmax.log_softmax):
                assert tuple(function(z, axis=axis, **options).shape) == shape
            totals = library.numpy(stable_softmax.logsumexp(z, axis=axis, **options))
            assert totals.shape == np.sum(np.zeros(shape), axis=axis).shape
            np.testing.assert_array_equal(totals, np.full(totals.shape, -np.inf))


def test_no_examples_along_several_axes(library):
    z = library.array(np.zeros((0, 3, 4)))
    for function in NORMALIZATIONS:
        shape = (0,) if function is stable_softmax.logsumexp else (0, 3, 4)
        assert tuple(function(z, axis=(1, 2)).shape) == shape
        assert tuple(function(z, axis=(2, 1), where=library.array(np.ones(4, bool))).shape) == shape


@pytest.mark.parametrize("function", NORMALIZATIONS, ids=lambda function: function.__name__)
def test_dtype_by_its_name(library, function):
    z = library.logits([[1.0, 2.0]], "float64")
    assert function(z, dtype="float32").dtype == library.dtype("float32")
    for name in ("int32", "float33", "", "softmax", ",", "1f4", "f4,", "f4, f4("):
        with pytest.raises(TypeError, match=r"^dtype must be a real floating-point dtype of (?!array_api_compat)"):
            function(z, dtype=name)


@pytest.mark.only_backends("numpy")
def test_numpy_arrays_that_are_refused():
    for array in (np.zeros(3, ml_dtypes.bfloat16), np.zeros(3, ml_dtypes.float8_e4m3fn)):
        with pytest.raises(TypeError, match=r"^logits must have .* dtype, not .*float.*: convert them to float32$"):
            stable_softmax.softmax(array)
    with pytest.warns(PendingDeprecationWarning), pytest.raises(TypeError, match=r"pass numpy.asarray\(logits\)$"):
        stable_softmax.softmax(np.matrix([[1.0, 2.0]]))


@pytest.mark.only_backends("jax")
def test_jax_arrays_that_are_refused(library):
    jax = library.jax
    for array in (jax.numpy.zeros(3, "float8_e4m3fn"), jax.random.split(jax.random.key(0), 3)):
        with pytest.raises(TypeError, match=r"^logits must have a real floating-point or integer dtype, not "):
            stable_softmax.softmax(array)


@pytest.mark.only_backends("dask")
def test_masked_chunks_are_refused_whether_dask_knows_of_them_or_not(library):
    z, y = np.asarray([[3.0, 0.0], [1.0, 2.0]]), np.asarray([0, 1])
    known = library.array(np.ma.masked_array(z, mask=z > 2))
    known = known.map_blocks(lambda chunk: np.ma.masked_array(chunk, mask=chunk > 2), dtype=z.dtype)
    hidden = known.map_blocks(lambda chunk: chunk, meta=np.zeros((0, 0)))
    for function, *answers in ((stable_softmax.softmax,), (softmax_crossentropy_with_logits, library.array(y))):
        for array in (known, hidden):
            with pytest.raises(TypeError, match=r"must not be a masked array: pass its data, and the mask's inverse"):
                function(array, *answers).compute()
    with pytest.raises(TypeError, match=r"must not be a masked array"):
        softmax_crossentropy_with_logits(library.array(z), hidden, reduction="mean").compute()


@pytest.mark.only_backends("dask")
def test_numpy_arrays_beside_those_of_dask(library):
    z, y = np.random.default_rng(3).normal(size=(6, 4)), np.arange(6) % 4
    options = {"class_weights": np.asarray([1, 2, 0.5, 1]), "where": np.ones(4, bool), "ignore_index": 2}
    results = value_and_grad_softmax_crossentropy_with_logits(library.array(z), y, **options)
    expected = value_and_grad_softmax_crossentropy_with_logits(z, y, **options)
    for result, same in zip(results, expected, strict=True):
        assert hasattr(result, "compute")
        np.testing.assert_allclose(result, same, rtol=1e-14)
    product = hvp_softmax_crossentropy_with_logits(library.array(z), y, z)
    np.testing.assert_allclose(product, hvp_softmax_crossentropy_with_logits(z, y, z), rtol=1e-14)


@pytest.mark.only_backends("numpy", "jax", "dask")
@pytest.mark.parametrize(
    ("kind", "ignored"), [("uint32", 2**32 - 1), ("int64", -(2**63)), ("int64", 2**40), ("uint64", 2**64 - 1)]
)
def test_ids_to_ignore_that_the_library_has_no_integer_for(library, kind, ignored):
    """Such as pandas' missing values, in NumPy's arrays beside those of others, and with 32 bits."""
    y = np.asarray([0, ignored], kind)
    with library.in_32_bits() if library.name == "jax" else nullcontext():
        z = library.array(np.zeros((2, 3), np.float32))
        losses = softmax_crossentropy_with_logits(z, y, ignore_index=ignored)
        np.testing.assert_allclose(losses, [np.log(3), 0], rtol=1e-6)
        other = softmax_crossentropy_with_logits(
            library.array(np.zeros((1, 3), np.float32)), y[:1], ignore_index=ignored
        )
        np.testing.assert_allclose(other, [np.log(3)], rtol=1e-6)


@pytest.mark.only_backends("dask")
@pytest.mark.parametrize("options", [{"ignore_index": 2}, {"class_weights": np.asarray([1, 2, 0.5, 1])}], ids=str)
def test_mean_reads_each_chunk_of_logits_once(library, options):
    import dask

    read = []

    def noted(chunk):
        read.append(chunk.shape)
        return chunk

    z = library.array(np.zeros((6, 4))).map_blocks(noted, meta=np.zeros((0, 0)))
    loss = softmax_crossentropy_with_logits(z, np.arange(6) % 4, reduction="mean", **options)
    with dask.config.set(scheduler="synchronous"):
        np.testing.assert_allclose(loss.compute(), np.log(4))
    assert len(read) == z.npartitions


@pytest.mark.only_backends("numpy")
def test_examples_are_counted_without_a_look_at_the_logits():
    """Which are one number, seen 2**51 times: nothing of their size fits into memory."""
    logits = np.broadcast_to(np.float16(0), (2, 2**50))
    options = {"label_smoothing": 0.0, "z_loss": 0.0, "reduction": "mean", "dtype": None, "ignore_index": 7}
    loss = loss_of(
        logits, np.asarray([0, 7]), -1, Options(where=None, class_weights=None, example_weights=None, **options)
    )
    assert float(loss.criterion.divisor[0, 0]) == 1


@pytest.mark.only_backends("array-api-strict")
def test_library_without_take_along_axis(library, monkeypatch):
    z, y = np.random.default_rng(3).normal(size=(6, 4)), np.arange(6) % 4
    monkeypatch.delattr(library.xp, "take_along_axis")
    for function in LOSSES:
        result = function(library.array(z), library.array(y), where=library.array(np.ones(4, bool)))
        np.testing.assert_allclose(library.numpy(result), function(z, y), rtol=1e-14)


@pytest.mark.only_backends("numpy")
def test_lists_and_tables_are_refused_with_the_way_to_go():
    class DataFrame:
        __module__ = "pandas.core.frame"
        ndim, dtypes = 2, (np.dtype("float64"),)

    for value in ([[1.0, 2.0]], (1.0, 2.0), 3.0, 3, DataFrame()):
        with pytest.raises(TypeError, match=r"^logits must be an array .*: pass numpy.asarray\(logits\)$"):
            stable_softmax.softmax(value)
    with pytest.raises(TypeError, match=r"^logits must be an array .*, not str$"):
        stable_softmax.softmax("logits")


@pytest.mark.only_backends("numpy")
def test_other_axes_that_would_fit_are_named():
    with pytest.raises(ValueError, match=r"without axis 3, not \(2, 4, 5\); axis=1 would fit$"):
        softmax_crossentropy_with_logits(np.zeros((2, 3, 4, 5)), np.zeros((2, 4, 5), np.int64))
    with pytest.raises(ValueError, match=r"but is -100 at position \(1,\); PyTorch's default is ignore_index=-100$"):
        softmax_crossentropy_with_logits(np.zeros((2, 3)), np.asarray([0, -100]))


@pytest.mark.only_backends("torch")
def test_numpy_arrays_while_another_thread_imports_pytorch():
    script = """
import threading, time
import numpy as np
import stable_softmax
def load():
    import torch
thread = threading.Thread(target=load)
thread.start()
while thread.is_alive():
    stable_softmax.softmax(np.zeros((2, 3)))
    time.sleep(1e-3)
print("done")
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout == "done\n", run.stderr


@pytest.mark.only_backends("numpy")
def test_threads_while_the_interpreter_ends():
    """When no thread may start any more, the work is done all the same."""
    script = """
import atexit, threading
import numpy as np
import stable_softmax
def work():
    with stable_softmax.set_workers(2):
        print(stable_softmax.softmax(np.zeros((200_000, 10)))[0, 0])
def late():
    threading.main_thread().join()
    work()
threading.Thread(target=late).start()
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout == "0.1\n", run.stderr


def swapped(array):
    """Return an array whose bytes are in the order that is not the machine's."""
    return array.astype(array.dtype.newbyteorder("S"))


@pytest.mark.only_backends("numpy", "dask")
def test_results_have_the_byte_order_of_the_machine(library):
    """As those of NumPy have: other libraries refuse the other order."""
    rng = np.random.default_rng(3)
    z, t, y = rng.normal(size=(6, 4)).astype(np.float32), rng.dirichlet(np.ones(4), size=6), np.arange(6) % 4
    options = {"class_weights": np.asarray([1, 2, 0.5, 1]), "where": np.ones(4, bool), "reduction": "mean"}

    def results(ordered, **dtype):
        z_, y_, t_, w_ = (library.array(ordered(array)) for array in (z, y, t, options["class_weights"]))
        for function in NORMALIZATIONS:
            yield function(z_, **dtype)
        for answers in (y_, t_):
            given = {**options, "class_weights": w_, **dtype}
            yield from value_and_grad_softmax_crossentropy_with_logits(z_, answers, **given)
            yield hvp_softmax_crossentropy_with_logits(z_, answers, z_, **given)
            yield stable_softmax.hessian_diagonal_softmax_crossentropy_with_logits(z_, answers, **given)
            loss, gradients = stable_softmax.value_and_grad_linear_softmax_crossentropy(
                z_, z_[:4], answers, bias=z_[0], **given
            )
            yield from (loss, *gradients)
            yield stable_softmax.linear_softmax_crossentropy(z_, z_[:4], answers, **given | {"reduction": "none"})
        if not dtype:
            statistics = stable_softmax.softmax_statistics(z_, y_)
            yield from (*statistics[:5], statistics.logsumexp(), statistics.crossentropy())

    for dtype in ({}, {"dtype": np.dtype("f8").newbyteorder("S")}):
        for result, same in zip(results(swapped, **dtype), results(np.asarray, **dtype), strict=True):
            assert result.dtype.isnative
            assert np.asarray(result).dtype == same.dtype
            np.testing.assert_array_equal(result, same)


@pytest.mark.only_backends("numpy", "jax", "dask")
def test_dtypes_by_the_names_that_numpy_has_for_them(library):
    z = library.array(np.zeros((2, 3), np.float32))
    for name in ("f8", ">f8", "<f8", "double", np.dtype(">f8")):
        assert stable_softmax.softmax(z, dtype=name).dtype == np.dtype("float64")


@pytest.mark.only_backends("jax", "dask")
@pytest.mark.parametrize("kind", ["i2", "i4", "i8", "u4", "f2", "f4", "f8"])
def test_numpy_arrays_of_any_byte_order_beside_those_of_the_library(library, kind):
    z, y, t = np.zeros((2, 3), np.float32), np.asarray([0, 2]), np.asarray([[0.25, 0.75, 0], [0, 0, 1]])
    answers = (t if kind.startswith("f") else y).astype(kind)
    options = {"class_weights": np.asarray([1, 2, 4]).astype(kind), "where": np.ones(3, bool)}
    given = answers, np.ones((2, 3), kind)
    expected = hvp_softmax_crossentropy_with_logits(library.array(z), *given, **options)
    options["class_weights"] = swapped(options["class_weights"])
    results = hvp_softmax_crossentropy_with_logits(library.array(z), *map(swapped, given), **options)
    np.testing.assert_array_equal(library.numpy(results), library.numpy(expected))
    weight = swapped(np.eye(3).astype(kind))
    losses = stable_softmax.linear_softmax_crossentropy(library.array(z), weight, swapped(answers), reduction="none")
    same = softmax_crossentropy_with_logits(library.array(z), answers)
    np.testing.assert_allclose(library.numpy(losses), library.numpy(same), rtol=1e-6)


@pytest.mark.only_backends("torch")
def test_targets_of_eight_bits_are_those_that_they_convert_to(library):
    """PyTorch has no comparisons for them."""
    logits = library.array(np.asarray([[1.0, 2, 3]]))
    narrow = library.array(np.asarray([[0.25, 0.5, 0.25]])).to(library.dtype("float8_e4m3fn"))
    losses = [softmax_crossentropy_with_logits(logits, targets) for targets in (narrow, narrow.to(logits.dtype))]
    assert losses[0] == losses[1]


class Quantity(np.ndarray):
    """An array with a unit, as those of astropy."""

    unit = "km"


class Percentage(np.ndarray):
    """An array with a unit under the name that unyt has for it."""

    units = "percent"


class Ratio(np.ndarray):
    """A quantity that is plain numbers."""

    units = "dimensionless"


@pytest.mark.only_backends("numpy")
def test_numbers_that_depend_on_a_unit_are_refused():
    z, y = np.zeros((2, 3)), np.asarray([0, 1])
    with pytest.raises(TypeError, match=r"^logits must be plain numbers, not a quantity in 'km': .* logits.value$"):
        softmax_crossentropy_with_logits(z.view(Quantity), y)
    with pytest.raises(TypeError, match=r"^class_weights must be plain numbers, not a quantity in 'percent'"):
        softmax_crossentropy_with_logits(z, y, class_weights=np.ones(3).view(Percentage))
    np.testing.assert_array_equal(stable_softmax.softmax(z.view(Ratio)), stable_softmax.softmax(z))


@pytest.mark.only_backends("numpy")
@pytest.mark.parametrize(
    ("module", "conversion"),
    [("blosc2.ndarray", r"logits\[...\]"), ("scipy.sparse", r"logits.toarray\(\)"), ("pint", "logits.magnitude")],
)
def test_arrays_that_do_not_follow_the_standard_are_refused_with_a_remedy(module, conversion):
    array = type("Array", (), {"__module__": module, "__array_namespace__": lambda _: np, "shape": (2, 3)})()
    if module != "blosc2.ndarray":
        del type(array).__array_namespace__
    with pytest.raises(TypeError, match=rf"^logits must be an array of .*, not {module}.Array: pass {conversion}$"):
        stable_softmax.softmax(array)
