"""Analytic derivatives as PyTorch's own, for autograd and for torch.func."""

from typing import Any

import torch
from array_api_compat import array_namespace

from stable_softmax._derivatives import Call


def is_transformed(tensor: Any) -> bool:
    """Whether operations on a tensor are traced by a transformation or the compiler, so that it has no values."""
    return bool(torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def evaluate(call: Call, logits: Any, *others: Any) -> Any:
    """Return the call's value, on a graph only where one is needed."""
    if torch.compiler.is_compiling():  # pragma: no cover - traced by the compiler, never run
        # It refuses a function with a rule for forward mode, and one that nothing requires a gradient of.
        if logits.requires_grad and torch.is_grad_enabled():
            return _ReverseMode.apply(call, logits, *others)
        return call.value(array_namespace(logits, *others), logits, *others)
    differentiated = logits.requires_grad and torch.is_grad_enabled() and not is_transformed(logits)
    if differentiated and call.function.value_and_gradient:
        return _SavedGradient.apply(call, logits, *others)[0]
    return _BothModes.apply(call, logits, *others)


class _ReverseMode(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(call: Call, *arrays: Any) -> Any:
        return call.value(array_namespace(*arrays), *arrays)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _output: Any) -> None:
        ctx.call, *arrays = inputs
        ctx.save_for_backward(*arrays)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        arrays = ctx.saved_tensors
        given = cotangents if len(cotangents) > 1 else cotangents[0]
        # The compiler knows no second derivatives.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not torch.compiler.is_compiling()):
            gradient = ctx.call.vjp(array_namespace(*arrays), given, *arrays)
        return None, gradient, *(None for _ in arrays[1:])


class _BothModes(_ReverseMode):
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _ReverseMode.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def jvp(ctx: Any, _call: None, vector: Any, *_others: None) -> Any:
        arrays = ctx.saved_tensors
        return ctx.call.jvp(array_namespace(*arrays), vector, *arrays)[1]


class _SavedGradient(_BothModes):
    """Computes the gradient with the value, which shares most of its work, and keeps it for `backward`."""

    @staticmethod
    def forward(call: Call, *arrays: Any) -> Any:
        return call.value_and_gradient(array_namespace(*arrays), *arrays)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.call, *arrays = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # of zeros for the gradient's cotangent, as large as the logits
        ctx.save_for_backward(*arrays, output[1])
        ctx.save_for_forward(*arrays)

    @staticmethod
    def backward(ctx: Any, cotangent: Any, _: Any) -> Any:
        *arrays, gradient = ctx.saved_tensors
        if cotangent is None:  # nothing that follows depends on the value
            gradient = None
        elif torch.is_grad_enabled():  # a second derivative may follow
            gradient = ctx.call.vjp(array_namespace(*arrays), cotangent, *arrays)
        else:
            gradient = cotangent * gradient
        return None, gradient, *(None for _ in arrays[1:])

    @staticmethod
    def jvp(ctx: Any, call: None, vector: Any, *others: None) -> Any:
        return _BothModes.jvp(ctx, call, vector, *others), None
