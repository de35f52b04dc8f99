"""Errors say what to pass instead, and what they say works."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from test_unknown_lengths import Lazy

from stable_softmax import linear_softmax_crossentropy, softmax, softmax_crossentropy_with_logits, softmax_statistics
from stable_softmax._libraries import remedies

pytestmark = pytest.mark.covering

LOGITS = np.asarray([[0.0, 1.0, 2.0], [2.0, 0.0, 1.0]])
EXPECTED = softmax_crossentropy_with_logits(LOGITS, np.asarray([0, 2]))
LISTS = {
    "logits": LOGITS.tolist(),
    "reference_answers": [0, 2],
    "where": [True] * 3,
    "class_weights": [1.0] * 3,
    "example_weights": [1.0] * 2,
}


def remedy_of(function, **arguments):
    """Return the code that an error advises for one of the arguments."""
    with pytest.raises(TypeError, match=": pass ") as caught:
        function(**arguments)
    return re.search(": pass (.*?)(, where classes has .*)?$", str(caught.value))[1]


def evaluated(code, **names):
    modules = {name: sys.modules[name] for name in re.findall(r"\b(numpy|jax|torch|dask|array_api_strict)\.", code)}
    return eval(code, modules | names)


def arguments_of(library):
    return {"logits": library.array(LOGITS), "reference_answers": library.array(np.asarray([0, 2]))}


@pytest.mark.parametrize("name", LISTS)
def test_lists_become_arrays_of_the_library_of_the_others(library, name):
    arguments = arguments_of(library) | {name: LISTS[name]}
    code = remedy_of(softmax_crossentropy_with_logits, **arguments)
    assert code.endswith(f".asarray({name})")
    losses = softmax_crossentropy_with_logits(**arguments | {name: evaluated(code, **{name: LISTS[name]})})
    np.testing.assert_allclose(library.numpy(losses), EXPECTED, rtol=1e-6)
    assert type(losses) is type(softmax_crossentropy_with_logits(**arguments_of(library)))


@pytest.mark.only_backends("numpy")
def test_several_lists():
    assert remedy_of(softmax_crossentropy_with_logits, **LISTS) == "numpy.asarray(logits)"


@pytest.mark.only_backends("torch", "array-api-strict")
def test_arrays_of_numpy_become_those_of_the_library(library):
    arguments = arguments_of(library) | {"reference_answers": np.asarray([0, 2]), "class_weights": np.ones(3)}
    code = remedy_of(softmax_crossentropy_with_logits, **arguments)
    for name, part in zip(("reference_answers", "class_weights"), code.split(" and "), strict=True):
        arguments[name] = evaluated(part, **{name: arguments[name]})
    np.testing.assert_allclose(library.numpy(softmax_crossentropy_with_logits(**arguments)), EXPECTED, rtol=1e-6)


@pytest.mark.only_backends("torch", "array-api-strict")
def test_arrays_of_two_libraries_beside_each_other(library):
    with pytest.raises(TypeError, match=r": convert them to one$"):
        softmax_crossentropy_with_logits(library.array(LOGITS), Lazy(np.asarray([0, 2])))


@pytest.mark.only_backends("torch")
def test_arrays_are_put_on_the_device_of_the_others(library):
    logits = library.array(LOGITS).to("meta")
    code = remedy_of(softmax_crossentropy_with_logits, logits=logits, reference_answers=[0, 2])
    assert code == "torch.asarray(reference_answers, device=logits.device)"


def test_names_of_classes_become_class_ids(library):
    classes, names = ["cat", "dog", "cow"], ["cat", "cow"]
    own = arguments_of(library)
    code = remedy_of(softmax_crossentropy_with_logits, logits=own["logits"], reference_answers=names)
    ids = evaluated(code, classes=classes, reference_answers=names)
    losses = softmax_crossentropy_with_logits(own["logits"], ids)
    np.testing.assert_allclose(library.numpy(losses), EXPECTED, rtol=1e-6)


@pytest.mark.only_backends("numpy")
@pytest.mark.parametrize("kind", ["U3", "S3", object])
def test_arrays_of_strings_and_objects(kind):
    names = np.asarray(["cat", "cow"], kind)
    code = remedy_of(softmax_crossentropy_with_logits, logits=LOGITS, reference_answers=names)
    assert remedy_of(softmax_statistics, logits=LOGITS, reference_answers=names) == code
    *numbers, code = code.split(", or for names ")
    ids = evaluated(code, classes=np.asarray(["cat", "dog", "cow"], kind).tolist(), reference_answers=names)
    np.testing.assert_array_equal(ids, [0, 2])
    assert numbers == (['reference_answers.astype("int64")'] if kind is object else [])
    code = remedy_of(softmax, logits=LOGITS.astype(kind))
    np.testing.assert_array_equal(evaluated(code, logits=LOGITS.astype(kind)), LOGITS)
    for name in ("class_weights", "example_weights"):
        options = {name: np.ones(3 if name == "class_weights" else 2).astype(kind)}
        code = remedy_of(softmax_crossentropy_with_logits, logits=LOGITS, reference_answers=ids, **options)
        assert code == f'{name}.astype("float64")'


def test_strings_of_numbers(library):
    code = remedy_of(softmax, logits=[["0", "1", "2"]])
    np.testing.assert_array_equal(evaluated(code, logits=[["0", "1", "2"]]), [[0, 1, 2]])
    weights = ["1", "1", "1"]
    code = remedy_of(softmax_crossentropy_with_logits, **arguments_of(library), class_weights=weights)
    given = arguments_of(library) | {"class_weights": evaluated(code, class_weights=weights)}
    np.testing.assert_allclose(library.numpy(softmax_crossentropy_with_logits(**given)), EXPECTED, rtol=1e-6)


def test_lists_of_arrays_are_stacked(library):
    rows = [library.array(row) for row in LOGITS]
    code = remedy_of(softmax, logits=rows)
    np.testing.assert_array_equal(library.numpy(evaluated(code, logits=rows)), LOGITS)


@pytest.mark.parametrize("kind", ["int64", "float32"])
def test_mask_of_numbers_is_compared_with_0(library, kind):
    where = library.array(np.asarray([1, 1, 0], kind))
    code = remedy_of(softmax, logits=library.array(LOGITS), where=where)
    probabilities = softmax(library.array(LOGITS), where=evaluated(code, where=where))
    np.testing.assert_array_equal(library.numpy(probabilities)[:, 2], [0, 0])


def test_python_has_a_float_of_64_bits(library):
    assert softmax(library.array(LOGITS), dtype=float).dtype == library.dtype("float64")


@pytest.mark.parametrize("shown", ["other.float32", "<class 'other.float32'>"])
def test_dtypes_of_other_libraries_have_a_name_in_this_one(library, shown):
    other = type("Dtype", (), {"__repr__": lambda _: shown})()
    with pytest.raises(TypeError, match=f", not {shown}: pass dtype='float32'$"):
        softmax(library.array(LOGITS), dtype=other)


@pytest.mark.only_backends("torch")
def test_scalar_types_of_numpy_are_no_dtypes_of_pytorch(library):
    with pytest.raises(TypeError, match=r": pass dtype='float32'$"):
        softmax(library.array(LOGITS), dtype=np.float32)


# Tables, for which pandas itself is not needed


def frame(*dtypes, ndim=1):
    """Return what pandas calls a table or a column, as far as advice looks at it."""
    kind = type("Frame", (), {"__module__": "pandas", "dtypes": list(dtypes), "dtype": dtypes[0], "ndim": ndim})
    return kind()


NATIVE = np.dtype("float32")
INTEGER, REAL, TRUTH, CATEGORY = (SimpleNamespace(kind=kind) for kind in "ifbO")


@pytest.mark.only_backends("numpy")
@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("logits", frame(NATIVE, NATIVE, ndim=2), "numpy.asarray(logits)"),
        ("logits", frame(NATIVE, REAL, ndim=2), 'logits.to_numpy(dtype="float64")'),
        ("logits", frame(INTEGER, REAL, ndim=2), 'logits.to_numpy(dtype="float64")'),
        ("logits", frame(INTEGER, CATEGORY, ndim=2), 'logits.to_numpy(dtype="float64")'),
        ("reference_answers", frame(INTEGER), 'reference_answers.to_numpy(dtype="int64")'),
        ("reference_answers", frame(CATEGORY), "pandas.Index(classes).get_indexer(reference_answers)"),
        ("where", frame(TRUTH), 'where.to_numpy(dtype="bool")'),
    ],
)
def test_columns_of_pandas(name, value, code):
    given = {"logits": LOGITS, "reference_answers": np.asarray([0, 2]), name: value}
    assert remedy_of(softmax_crossentropy_with_logits, **given) == code


@pytest.mark.only_backends("torch")
def test_columns_of_pandas_beside_arrays_of_another_library(library):
    given = {"logits": library.array(LOGITS), "reference_answers": frame(INTEGER)}
    code = remedy_of(softmax_crossentropy_with_logits, **given)
    assert code == 'torch.asarray(reference_answers.to_numpy(dtype="int64"))'


@pytest.mark.parametrize("root", ["zarr", "polars", "unknown"])
def test_values_of_other_packages(library, root):
    value = type("Value", (), {"__module__": f"{root}.inner"})()
    arrays = {"logits": library.array(LOGITS), "where": value}
    advice = remedies.remedy_for_value("where", value, arrays)
    takes_numpy = library.name in ("numpy", "dask", "jax")
    inner = {"zarr": "where[...]", "polars": "numpy.asarray(where)", "unknown": ""}[root]
    if root == "zarr" and library.name in ("numpy", "dask"):
        inner = "dask.array.from_zarr(where)"
    assert inner in advice
    assert (".asarray(" + inner in advice) is (root != "unknown" and not takes_numpy)


# The order of arguments


@pytest.mark.parametrize("batch", [(2,), (3,), (2, 4)])
@pytest.mark.parametrize("kind", ["int64", "float64"])
def test_bias_where_the_labels_belong(library, batch, kind):
    features, weight, bias = (library.array(np.ones(shape)) for shape in ((*batch, 5), (3, 5), 3))
    labels = library.array(np.zeros(batch if kind == "int64" else (*batch, 3), kind))
    with pytest.raises(ValueError, match=r"^reference_answers and bias are swapped: .*float64 \(3,\), and bias is "):
        linear_softmax_crossentropy(features, weight, bias, labels)
    assert linear_softmax_crossentropy(features, weight, labels, bias, reduction="none").shape == batch


def test_bias_of_integers_and_targets_of_one_example_are_in_order(library):
    features, weight = library.array(np.ones(5)), library.array(np.ones((3, 5)))
    targets, bias = library.array(np.ones(3) / 3), library.array(np.ones(3, np.int64))
    assert linear_softmax_crossentropy(features, weight, targets, bias).ndim == 0
    with pytest.raises(ValueError, match=r"^bias must have shape \(3,\)"):
        linear_softmax_crossentropy(library.array(np.ones((2, 5))), weight, targets, library.array(np.ones(4)))


def test_bias_and_targets_of_as_many_examples_as_classes(library):
    features, weight, ones = (library.array(np.ones(shape)) for shape in ((3, 5), (3, 5), 3))
    with pytest.raises(ValueError, match=r"^reference_answers of dtype .* are probabilities"):
        linear_softmax_crossentropy(features, weight, ones, ones)


# Options that a function does not have


@pytest.mark.only_backends("numpy", "torch", "array-api-strict")
@pytest.mark.parametrize(("name", "length"), [("class_weights", 3), ("example_weights", 2)])
def test_statistics_have_no_dtype_to_pass(library, name, length):
    logits = library.logits(LOGITS, "float32")
    given = {"reference_answers": library.array(np.asarray([0, 2])), name: library.array(np.full(length, 1e300))}
    with pytest.raises(ValueError, match=r": scale them, or convert logits to float64$"):
        softmax_statistics(logits, **given)
    softmax_statistics(library.array(LOGITS), **given)
