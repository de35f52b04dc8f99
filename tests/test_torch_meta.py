"""Tensors without values, on PyTorch's device "meta", have the shape and the dtype of those that have some."""

import numpy as np
import pytest
import torch
from loss_options import COMBINATIONS
from public_functions import every_result

EACH_AND_ALL = [(), *(names for names in COMBINATIONS if len(names) != 2)]


@pytest.mark.parametrize(
    ("kind", "count", "names"),
    [
        ("bfloat16", 0, ()),
        *(("float32", 12, names) for names in ((), *EACH_AND_ALL[-2:])),
        *(pytest.param("float32", 12, names, marks=pytest.mark.thorough) for names in EACH_AND_ALL[1:-2]),
    ],
    ids=str,
)
def test_results_are_those_of_the_cpu_but_for_their_values(kind, names, count):
    def on_cpu(values):
        tensor = torch.asarray(np.array(values))
        return tensor.to(getattr(torch, kind)) if tensor.is_floating_point() else tensor

    def on_meta(values):
        return on_cpu(values).to("meta")

    pairs = zip(every_result(names, on_meta, count), every_result(names, on_cpu, count), strict=True)
    for (name, results), (_, expected) in pairs:
        assert [(r.shape, r.dtype) for r in results] == [(e.shape, e.dtype) for e in expected], name
        assert {r.device.type for r in results} == {"meta"}, name
