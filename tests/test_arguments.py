"""Bad arguments get an error that names the argument, what came and what is accepted."""

import numpy as np
import pytest
import zarr

import stable_softmax

pytestmark = pytest.mark.covering

NORMALIZATIONS = [stable_softmax.softmax, stable_softmax.log_softmax, stable_softmax.logsumexp]
LOSSES = [
    stable_softmax.softmax_crossentropy_with_logits,
    stable_softmax.grad_softmax_crossentropy_with_logits,
    stable_softmax.value_and_grad_softmax_crossentropy_with_logits,
]


@pytest.fixture(params=NORMALIZATIONS + LOSSES, ids=lambda function: function.__name__)
def call(request, library):
    """Call the function on logits, and on class ids of its own if it takes any."""

    def call(logits, **options):
        function = request.param
        if function in NORMALIZATIONS:
            return function(logits, **options)
        return function(logits, library.array(np.zeros(2, np.int64)), **options)

    return call


@pytest.fixture(params=LOSSES, ids=lambda function: function.__name__)
def loss(request):
    return request.param


def logits_of(library, *shape):
    return library.array(np.zeros(shape))


@pytest.mark.parametrize("logits", [[[1.0, 2.0]], 3.0, None, "logits"], ids=["list", "float", "None", "string"])
def test_logits_that_are_no_array(call, logits):
    with pytest.raises(
        TypeError, match=f"^logits must be an array of a library .*, not {type(logits).__name__}(: pass .*)?$"
    ):
        call(logits)


@pytest.mark.parametrize("kind", ["bool", "complex128"])
def test_logits_that_are_not_real(call, library, kind):
    logits = library.array(np.zeros((2, 3), kind))
    with pytest.raises(TypeError, match=rf"^logits must have a real floating-point or integer dtype, not .*{kind}"):
        call(logits)


@pytest.mark.only_backends("numpy")
@pytest.mark.parametrize("kind", [object, "U3", "datetime64[s]", [("a", float)]])
def test_logits_of_a_dtype_outside_the_standard(call, kind):
    with pytest.raises(TypeError, match=r"^logits must have a real floating-point or integer dtype, not"):
        call(np.zeros((2, 3), kind))


def test_logits_without_a_dimension(call, library):
    with pytest.raises(
        ValueError, match=r"^logits must have at least one dimension, unless axis is None, but its shape is \(\)"
    ):
        call(logits_of(library))


def test_no_classes(loss, library):
    with pytest.raises(ValueError, match=r"^logits must have at least one class along axis -1, .* shape is \(2, 0\)"):
        loss(library.array(np.zeros((2, 0))), library.array(np.zeros(2, np.int64)))


@pytest.mark.parametrize("axis", [2, -3])
def test_axis_out_of_range(call, library, axis):
    with pytest.raises(ValueError, match=rf"^axis must lie in \[-2, 2\) for logits of 2 dimensions, but is {axis}$"):
        call(logits_of(library, 2, 3), axis=axis)


@pytest.mark.parametrize("axis", [1.0, "last"])
def test_axis_that_is_no_integer(call, library, axis):
    with pytest.raises(TypeError, match=f"^axis must be an integer.* not {axis!r}(: reduction is a keyword)?$"):
        call(logits_of(library, 2, 3), axis=axis)


@pytest.mark.parametrize("function", NORMALIZATIONS)
def test_axes_that_name_a_dimension_twice_or_none(library, function):
    with pytest.raises(ValueError, match=r"^axis must not name a dimension twice, but is \(0, -2\)$"):
        function(logits_of(library, 2, 3), axis=(0, -2))
    with pytest.raises(ValueError, match=r"^axis must name at least one dimension, but is \(\)$"):
        function(logits_of(library, 2, 3), axis=())


def test_no_axis_for_a_loss(library, loss):
    with pytest.raises(TypeError, match=r"^axis must be an integer, not None"):
        loss(logits_of(library, 2, 3), library.array(np.zeros(2, np.int64)), axis=None)


@pytest.mark.parametrize("other", ["int32", "complex128", "float33", 3, np, np.zeros(3), np.float32(1)])
def test_dtype_that_is_not_real_floating(call, library, other):
    other = getattr(library.xp, str(other), other)
    with pytest.raises(TypeError, match=r"^dtype must be a real floating-point dtype of "):
        call(logits_of(library, 2, 3), dtype=other)


@pytest.mark.parametrize("kind", ["bool", "complex128"])
def test_reference_answers_of_another_dtype(library, loss, kind):
    expected = rf"^reference_answers must be class ids of an integer dtype or probabilities of .*, not .*{kind}"
    with pytest.raises(TypeError, match=expected):
        loss(logits_of(library, 2, 3), library.array(np.zeros(2, kind)))


def test_probabilities_of_another_shape(library, loss):
    expected = (
        r"^reference_answers of dtype .*float64 are probabilities and must have logits' shape \(2, 3\), not \(2,\); "
        r"class ids need an integer dtype: cast them$"
    )
    with pytest.raises(ValueError, match=expected):
        loss(logits_of(library, 2, 3), library.array(np.zeros(2)))


@pytest.mark.parametrize("shape", [(), (3,), (2, 1), (1, 2), (2, 3)])
def test_class_ids_of_another_shape(library, loss, shape):
    expected = r"^reference_answers must have shape \(2,\), which is logits' shape \(2, 3\) without axis 1, not \("
    with pytest.raises(ValueError, match=expected):
        loss(logits_of(library, 2, 3), library.array(np.zeros(shape, np.int64)))


@pytest.mark.parametrize("class_ids", [[0, 1], 0, None])
def test_class_ids_that_are_no_array(library, loss, class_ids):
    with pytest.raises(
        TypeError, match=f"^reference_answers must be an array .*, not {type(class_ids).__name__}(: pass .*)?$"
    ):
        loss(logits_of(library, 2, 3), class_ids)


@pytest.mark.only_backends("torch", "array-api-strict")
def test_arrays_of_two_libraries(library, loss):
    expected = r"^all arrays must come from one array library, but logits is .*\..*, reference_answers is numpy.ndarray"
    with pytest.raises(TypeError, match=expected):
        loss(logits_of(library, 2, 3), np.zeros(2, np.int64))


@pytest.mark.parametrize("reduction", ["avg", "", None, ["mean"]])
def test_unknown_reduction(library, loss, reduction):
    with pytest.raises(ValueError, match=r"^reduction must be 'none', 'mean' or 'sum', not "):
        loss(logits_of(library, 2, 3), library.array(np.zeros(2, np.int64)), reduction=reduction)


@pytest.mark.parametrize("function", [stable_softmax.softmax_crossentropy_with_logits, stable_softmax.softmax])
def test_arguments_are_not_taken_by_position_beyond_axis(library, function):
    arrays = [logits_of(library, 2, 3), library.array(np.zeros(2, np.int64))]
    with pytest.raises(TypeError, match="positional arguments"):
        function(*arrays[: 1 if function is stable_softmax.softmax else 2], -1, "mean")


@pytest.mark.only_backends("dask")
def test_unknown_shape(call, library):
    rows = library.array(np.arange(6.0).reshape(2, 3))
    with pytest.raises(ValueError, match=r"^logits must have a known shape, .* call compute_chunk_sizes\(\) first"):
        call(rows[rows[:, 0] >= 0])


@pytest.mark.only_backends("dask")
def test_unknown_shape_of_answers(library, loss):
    ids = library.array(np.zeros(2, np.int64))
    with pytest.raises(
        ValueError, match=r"^reference_answers must have a known shape, .* call compute_chunk_sizes\(\)"
    ):
        loss(logits_of(library, 2, 3), ids[ids >= 0])


@pytest.mark.only_backends("jax")
def test_errors_come_while_tracing(library, loss):
    with pytest.raises(ValueError, match=r"^reference_answers must have shape"):
        library.jax.make_jaxpr(loss)(logits_of(library, 2, 3), library.array(np.zeros(3, np.int64)))


@pytest.mark.parametrize("keepdims", [1, "yes", None])
def test_keepdims_that_is_no_truth_value(library, keepdims):
    with pytest.raises(TypeError, match=f"^keepdims must be True or False, not {keepdims!r}$"):
        stable_softmax.logsumexp(logits_of(library, 2, 3), keepdims=keepdims)


def test_number_beyond_all_floats(library, loss):
    with pytest.raises(ValueError, match=r"^z_loss must lie in \[0, .*\], but is 1000"):
        loss(logits_of(library, 2, 3), library.array(np.zeros(2, np.int64)), z_loss=10**400)


@pytest.mark.only_backends("numpy")
@pytest.mark.parametrize("size", [2, 10_000])
def test_masked_arrays_are_refused_with_the_way_to_go(size):
    logits = np.ma.masked_array(np.ones((size, 2)), mask=np.zeros((size, 2)))
    with pytest.raises(TypeError, match=r"^logits must not be a masked array: pass its data, and .* as where$"):
        stable_softmax.softmax(logits)


@pytest.mark.only_backends("numpy")
def test_arrays_in_files_are_refused_with_the_way_to_go(tmp_path):
    stored = zarr.create_array(tmp_path / "logits", shape=(2, 3), dtype="float32")
    with pytest.raises(TypeError, match=r"^logits must be an array of .*: pass dask.array.from_zarr\(logits\)$"):
        stable_softmax.softmax(stored)


@pytest.mark.only_backends("jax", "dask")
def test_numpy_arrays_of_a_dtype_that_the_library_has_not(library, loss):
    with pytest.raises(TypeError, match=r"^reference_answers must be class ids .* not datetime64\[s\]$"):
        loss(logits_of(library, 2, 3), np.zeros(2, "datetime64[s]"))


def test_numbers_as_arrays(library):
    arguments, smoothing = (logits_of(library, 2, 3), library.array(np.zeros(2, np.int64))), np.asarray(0.1)
    given, same = (
        stable_softmax.softmax_crossentropy_with_logits(*arguments, label_smoothing=number)
        for number in (library.array(smoothing), float(smoothing))
    )
    np.testing.assert_allclose(library.numpy(given), library.numpy(same), rtol=1e-6)


@pytest.mark.only_backends("jax", "dask")
def test_ignored_ids_in_numpy_arrays_beside_those_of_the_library(library):
    losses = stable_softmax.softmax_crossentropy_with_logits(
        logits_of(library, 2, 3), np.asarray([-100, 1]), ignore_index=-100
    )
    np.testing.assert_array_equal(library.numpy(losses) > 0, [False, True])


def test_nothing_is_ignored_among_probabilities(library):
    z = logits_of(library, 2, 3)
    with pytest.raises(ValueError, match=r"^ignore_index needs class ids, but reference_answers are probabilities of"):
        stable_softmax.softmax_crossentropy_with_logits(z, z, ignore_index=-100)


@pytest.mark.only_backends("numpy", "torch", "array-api-strict")
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_weights_beyond_the_dtype_that_the_work_is_done_in(library, reduction):
    z, y = library.logits([[0.0, 1.0]], "float32"), library.array(np.zeros(1, np.int64))
    options = {"class_weights": library.array(np.asarray([1.0, 1e300])), "reduction": reduction}
    expected = (
        r"^class_weights must lie in the range of float32, the dtype of the computation, but is 1e\+300 at position "
        r"\(1,\): scale them, or pass dtype='float64'$"
    )
    with pytest.raises(ValueError, match=expected):
        stable_softmax.softmax_crossentropy_with_logits(z, y, **options)
    stable_softmax.softmax_crossentropy_with_logits(z, y, **options, dtype="float64")
    stable_softmax.softmax_crossentropy_with_logits(z, y, **options | {"reduction": "mean"})
