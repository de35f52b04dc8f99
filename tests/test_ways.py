"""The table of ways: each way to a number gives the right loss, gradient and second derivative, of every row."""

import numpy as np
import pytest
from ways import CLASSES, MERGES, Table, statistics, working

import stable_softmax
from stable_softmax import set_workers
from stable_softmax._core import layout as layouts
from stable_softmax._libraries import library_of
from stable_softmax._libraries.standard import Library


@pytest.mark.thorough_on("jax")
@pytest.mark.parametrize("name", MERGES)
def test_losses_of_merged_parts(library, dtype, name):
    table = Table(library, dtype)
    with np.errstate(all="raise"):
        whole = statistics(name, library)(table.z, table.y)
        table.check(library.numpy(whole.crossentropy()), "loss", working(dtype))


WHOLE = {
    "whole": {},
    "blocks": {"SMALL": 0, "BLOCK_BYTES": 256},
    "columns": {"SMALL": 0, "BLOCK_BYTES": 256},
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.only_backends("numpy", "torch", "array-api-strict", "dask")
def test_functions_on_pieces(library, dtype, name, monkeypatch):
    for attribute, value in WHOLE[name].items():
        monkeypatch.setattr(layouts, attribute, value)
    own = type(library_of(library.array(np.zeros(1))))
    monkeypatch.setattr(own, "block_factor", Library.block_factor)
    if name == "blocks":
        monkeypatch.setattr(own, "short_rows", 0)
    table = Table(library, dtype)
    with np.errstate(all="raise"), set_workers(2):
        check_functions(library, table)


@pytest.mark.only_backends("dask")
@pytest.mark.parametrize("cuts", [(6, 6), (0, 5, 0, 4, 3, 0), (1,) * CLASSES, (3, 3, 4, 2)], ids=str)
def test_functions_on_chunks(library, dtype, cuts):
    table = Table(library, dtype)
    table.z = table.z.rechunk((7, cuts))
    with np.errstate(all="raise"):
        check_functions(library, table)


def check_functions(library, table):
    arrays = table.z, table.y
    loss, gradient = stable_softmax.value_and_grad_softmax_crossentropy_with_logits(*arrays, reduction="none")
    alone = stable_softmax.softmax_crossentropy_with_logits(*arrays)
    product = stable_softmax.hvp_softmax_crossentropy_with_logits(*arrays, table.v, reduction="none")
    for values, field in ((loss, "loss"), (alone, "loss"), (gradient, "gradient"), (product, "product")):
        table.check(library.numpy(values), field)


@pytest.mark.parametrize("block_size", [1, 5, None])
@pytest.mark.only_backends("numpy", "torch", "array-api-strict", "dask")
def test_projected_features(library, dtype, block_size):
    table = Table(library, dtype, finite=True)
    identity = library.logits(np.eye(CLASSES), dtype)
    with np.errstate(all="raise"):
        loss, (gradient, *_) = stable_softmax.value_and_grad_linear_softmax_crossentropy(
            table.z, identity, table.y, reduction="none", block_size=block_size
        )
        table.check(library.numpy(loss), "loss")
        table.check(library.numpy(gradient), "gradient")
