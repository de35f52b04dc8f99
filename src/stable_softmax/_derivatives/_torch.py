"""Analytic derivatives as PyTorch's own, for autograd and for torch.func."""

from typing import Any

import torch
from array_api_compat import array_namespace

from stable_softmax._derivatives import Differentiable


def call(function: Differentiable, options: dict[str, Any], logits: Any, *others: Any) -> Any:
    """Return the function's value, on a graph only where one is needed."""
    return _Function.apply(function, options, logits, *others)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(function: Differentiable, options: dict[str, Any], *arrays: Any) -> Any:
        return function.value(array_namespace(*arrays), *arrays, **options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _output: Any) -> None:
        ctx.function, ctx.options, *arrays = inputs
        ctx.save_for_backward(*arrays)
        ctx.save_for_forward(*arrays)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        arrays = ctx.saved_tensors
        given = cotangents if len(cotangents) > 1 else cotangents[0]
        gradient = ctx.function.vjp(array_namespace(*arrays), given, *arrays, **ctx.options)
        return None, None, gradient, *(None for _ in arrays[1:])

    @staticmethod
    def jvp(ctx: Any, _function: None, _options: None, vector: Any, *_others: None) -> Any:
        arrays = ctx.saved_tensors
        return ctx.function.jvp(array_namespace(*arrays), vector, *arrays, **ctx.options)[1]
