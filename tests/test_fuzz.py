"""Whatever Python objects a caller passes: a result, a TypeError or a ValueError, and no input that has changed."""

import inspect
import math
from decimal import Decimal
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from array_api_compat import is_array_api_obj, is_dask_array
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stable_softmax

FUNCTIONS = [f for name in stable_softmax.__all__ if inspect.isfunction(f := getattr(stable_softmax, name))]
FUNCTIONS = [function for function in FUNCTIONS if {"logits", "features"} & set(inspect.signature(function).parameters)]
ARGUMENTS = [(function, name) for function in FUNCTIONS for name in inspect.signature(function).parameters]
# JAX compiles every operation anew for every shape, and Dask builds a graph for every call.
EXAMPLES = {"numpy": 60, "array-api-strict": 40, "torch": 30, "dask": 10}
SHAPES = [(3,), (2, 3), (2, 3, 2), (0, 3), (2, 0), (1, 1)]
FEATURES = 4
REDUCTIONS = ["none", "mean", "sum"]

pytestmark = [
    pytest.mark.thorough_on("jax", "array-api-strict"),
    pytest.mark.covering_on("numpy"),
    pytest.mark.unversioned,
]


class Subclass(np.ndarray):
    """An array that a caller derived from NumPy's."""


# Left out: np.matrix, for which NumPy itself warns.
ODD_ARRAYS = [
    np.asarray(1.5),
    np.asarray("mean"),
    np.zeros((0, 0, 0)),
    np.zeros((2, 3), complex),
    np.zeros((2, 3), bool),
    np.zeros((2, 3), object),
    np.asarray([[None, "a", 1.0]] * 2, object),
    np.full((2, 3), "text"),
    np.zeros((2, 3), "S3"),
    np.zeros((2, 3), "datetime64[s]"),
    np.zeros((2, 3), "timedelta64[s]"),
    np.zeros((2, 3), [("a", float), ("b", int)]),
    np.zeros((2, 3), ">f8"),
    np.zeros((2, 3), ">i2"),
    np.zeros((2, 3), "V8"),
    np.zeros((1,) * 20),
    np.broadcast_to(np.float64(0.5), (2, 3)),
    np.arange(12.0).reshape(2, 6)[:, ::-2],
    np.ones((2, 3)).view(Subclass),
    np.full((2, 3), np.iinfo(np.uint64).max),
    np.full(2, np.iinfo(np.int64).min),
    np.full(3, -1.0),
    np.zeros(3),
    np.float32(1.0),
    np.int8(1),
]
NUMBERS = [0, 1, -1, 2, 255, -100, 10**400, -(10**400), 2**63, 0.5, -0.0, 1e308, math.nan, math.inf, -math.inf]
OTHERS = [
    None,
    True,
    False,
    object(),
    object,
    Ellipsis,
    1j,
    Decimal("0.5"),
    Fraction(1, 3),
    b"none",
    "",
    "mean",
    "NONE",
]
CONTAINERS = [
    (),
    (0,),
    (0, 1),
    (0, 0),
    (None,),
    ("x", 0.5),
    [],
    [0],
    [[1.0, 2.0]],
    {},
    {"a": 1},
    {0},
    range(3),
    slice(2),
]
DTYPES = [float, int, "float32", "float64", "nonsense", np.float32, np.float64, np.int32, np.dtype("float16"), np.bool_]
ODDITIES = [*ODD_ARRAYS, *NUMBERS, *OTHERS, *CONTAINERS, *DTYPES, len, np, type(None)]


@cache
def odd_objects(library):
    """Return all odd objects, and the odd arrays once more as arrays of the library where it can hold them."""
    held = (library.array(array) for array in ODD_ARRAYS if can_hold(library, array))
    return [*ODDITIES, *held, *library.odd_arrays()]


def anything(library):
    """Draw any object at all."""
    return st.one_of(
        st.sampled_from(odd_objects(library)),
        st.integers(),
        st.floats(),
        st.text(max_size=4),
        st.lists(st.integers(-3, 3) | st.floats(), max_size=3),
        st.sampled_from(SHAPES).map(lambda shape: library.array(np.ones(shape))),
    )


def can_hold(library, array):
    try:
        library.array(array)
    except (TypeError, ValueError):
        return False
    return True


def floats_in(library, shape, dtypes=None, low=-1e3, high=1e3):
    """Draw an array of reals, special values among them unless a range was asked for."""
    special = [0.0, math.nan, math.inf, -math.inf, 6e4, -6e4] if low < 0 else [0.0, high]
    number = st.floats(low, high, width=32) | st.sampled_from(special)
    size = math.prod(shape)
    values = st.lists(number, min_size=size, max_size=size).map(lambda numbers: np.reshape(numbers, shape))
    return st.builds(library.logits, values, st.sampled_from(dtypes or library.dtypes))


def integers_in(library, shape, high, dtype):
    size = math.prod(shape)
    number = st.integers(0, max(0, high - 1)) | st.sampled_from([-1, high])
    values = st.lists(number, min_size=size, max_size=size)
    return values.map(lambda numbers: library.array(np.asarray(numbers, dtype).reshape(shape)))


def booleans_in(library, shape):
    size = math.prod(shape)
    values = st.lists(st.booleans(), min_size=size, max_size=size)
    return values.map(lambda flags: library.array(np.asarray(flags, bool).reshape(shape)))


def fitting(library, shape, axis):
    """Return by name what fits each argument, so that calls get past the checks."""
    classes, examples = shape[axis], shape[:axis] + shape[axis % len(shape) + 1 :]
    trailing = (1,) * (len(examples[axis % len(shape) :]))
    class_ids = st.sampled_from([np.int64, np.int32, np.int16]).flatmap(
        lambda dtype: integers_in(library, examples, classes, dtype)
    )
    answers = class_ids | floats_in(library, shape, low=0.0, high=1.0)
    numbers = st.sampled_from([0, 0.0, 0.1, 1, 1.0, Fraction(1, 2), np.float64(0.25)])
    return {
        "logits": floats_in(library, shape) | integers_in(library, shape, 9, np.int64),
        "reference_answers": answers,
        "reference_logits": floats_in(library, shape) | integers_in(library, shape, 9, np.int64),
        "reference_weight": st.sampled_from([0.5, 0.25, np.float32(0.1), Fraction(1, 3)]),
        "example_weights": floats_in(library, examples, low=0.0, high=4.0),
        # The contract is silent about infinite vectors, of which NumPy warns.
        "vector": floats_in(library, shape, low=0.0),
        "axis": st.sampled_from([axis, axis % len(shape), (axis,)]),
        "where": booleans_in(library, shape) | booleans_in(library, (classes, *trailing)),
        "class_weights": floats_in(library, (classes,), low=0.0, high=4.0),
        "label_smoothing": numbers,
        "z_loss": numbers,
        "block_size": st.sampled_from([None, 1, 5]),
        "softcap": st.sampled_from([None, 30.0, 1]),
        "ignore_index": st.sampled_from([None, 0, 1, -1, -100, 2**70]),
        "first_class": st.sampled_from([0, 2]),
        "reduction": st.sampled_from(REDUCTIONS),
        "dtype": st.sampled_from([None, *map(library.dtype, library.dtypes)]),
        "keepdims": st.booleans(),
        # Of whose infinities NumPy's own products warn.
        "features": floats_in(library, (*examples, FEATURES), low=0.0),
        "weight": floats_in(library, (classes, FEATURES), low=0.0),
        "bias": floats_in(library, (classes,)),
        "reference_features": floats_in(library, (*examples, FEATURES), low=0.0),
        "reference_bias": floats_in(library, (classes,)),
        "with_respect_to": st.sampled_from(["features", ("weight", "bias"), ()]),
    }


@st.composite
def calls(draw, function, library):
    """Draw the arguments of a call: all as they should be, or one or two of them anything, or every one."""
    shape = draw(st.sampled_from(SHAPES))
    known = fitting(library, shape, draw(st.sampled_from([-1, *range(-len(shape), 0)])))
    known["reference_weight"] = (
        known["weight"] if "features" in inspect.signature(function).parameters else st.just(0.3)
    )
    parameters = inspect.signature(function).parameters.values()
    optional = [parameter.name for parameter in parameters if parameter.default is not parameter.empty]
    given_names = {parameter.name for parameter in parameters if parameter.default is parameter.empty}
    if optional:
        given_names |= draw(st.sets(st.sampled_from(optional)))
    names = sorted(given_names)
    spoiled = draw(st.sets(st.sampled_from(names), max_size=2) | st.just(set(names)))
    odd = anything(library)
    return {name: draw(odd if name in spoiled else known.get(name, odd)) for name in names}


def contents(library, value):
    """Return the bytes of an array, which a lazy one computes first, or None for anything else."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tobytes()
    # NumPy's scalar types, too, have the method by which array-api-compat knows an array.
    if not is_array_api_obj(value) or isinstance(value, type):
        return None
    try:
        return library.numpy(value).tobytes()
    except (TypeError, RuntimeError, ValueError, NotImplementedError):  # of an array that is odd enough
        return repr(value)


def flattened(results):
    """Yield the arrays of nested tuples and dicts, in which None stands for what does not apply."""
    results = tuple(results.values()) if isinstance(results, dict) else results
    if isinstance(results, tuple):
        for result in results:
            yield from flattened(result)
    elif results is not None:
        yield results


def check_call(library, function, arguments):
    """Call, and check what came out, and that the arguments are what they were."""
    # To look at Dask's arrays means to compute them, and they have no memory of their own.
    watched = {name: value for name, value in arguments.items() if not is_dask_array(value)}
    before = {name: contents(library, value) for name, value in watched.items()}
    try:
        results = function(**arguments)
    except (TypeError, ValueError):
        results = ()
    for result in flattened(results):
        assert contents(library, result) is not None
    assert {name: contents(library, value) for name, value in watched.items()} == before


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_any_arguments_give_a_result_or_a_type_or_value_error(library, function):
    @settings(max_examples=EXAMPLES.get(library.name, 25), deadline=None, suppress_health_check=list(HealthCheck))
    @given(calls(function, library))
    def check(arguments):
        check_call(library, function, arguments)

    check()


@pytest.mark.parametrize(("function", "name"), ARGUMENTS, ids=lambda part: getattr(part, "__name__", part))
def test_each_odd_object_in_an_argument_of_a_good_call(library, function, name):
    good = {
        "logits": library.logits(np.ones((2, 3)), "float32"),
        "reference_answers": library.array(np.zeros(2, np.int64)),
        "reference_logits": library.logits(np.zeros((2, 3)), "float32"),
        "vector": library.logits(np.ones((2, 3)), "float32"),
        "features": library.logits(np.ones((2, FEATURES)), "float32"),
        "weight": library.logits(np.ones((3, FEATURES)), "float32"),
        "reference_features": library.logits(np.zeros((2, FEATURES)), "float32"),
        "reference_weight": library.logits(np.zeros((3, FEATURES)), "float32"),
    }
    parameters = inspect.signature(function).parameters.values()
    good = {parameter.name: good[parameter.name] for parameter in parameters if parameter.default is parameter.empty}
    for odd in odd_objects(library):
        try:
            check_call(library, function, good | {name: odd})
        except Exception as error:
            error.add_note(f"with {name}={odd!r}")
            raise
