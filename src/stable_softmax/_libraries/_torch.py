"""Analytic derivatives as PyTorch's own, for autograd and for torch.func."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import array_api_compat.torch as xp
import torch
from torch._C import _functorch as functorch
from torch._functorch.pyfunctorch import (
    retrieve_all_functorch_interpreters,
    retrieve_current_functorch_interpreter,
)
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from stable_softmax._libraries._differentiable import Differentiable

_PLAIN = (torch.Tensor, torch.nn.Parameter)
# With fewer classes than this, what a row leaves of its last vector takes longer than separate passes.
_SHORT = 48


def is_plain(tensor: Any) -> bool:
    """Whether a tensor has values that can be read and written at once: nothing traces, transforms or wraps it."""
    return runs_at_once(tensor) and bool(tensor.is_cpu)


def runs_at_once(tensor: Any) -> bool:
    """Whether each operation on a tensor is done at once, or in order: nothing traces, transforms or wraps it."""
    return not _is_transformed(tensor) and type(tensor) in _PLAIN and not torch._C._len_torch_dispatch_stack()


def _is_transformed(tensor: Any) -> bool:
    """Whether a compiler, TorchScript's tracer or a transformation of functions follows what is done with a tensor."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or functorch.is_functorch_wrapped_tensor(tensor)
        or functorch.is_legacy_batchedtensor(tensor)
    )


def is_constant(*arrays: Any) -> bool:
    """Whether no derivative of any tensor can be asked for."""
    if torch.compiler.is_compiling():  # pragma: no cover - traced, never run: the compiler cannot trace what follows
        return False
    tensors = _tensors_in(arrays)
    return forward_ad._current_level < 0 and not _are_recorded(tensors) and not any(map(_is_transformed, tensors))


def needs_no_graph(*arrays: Any) -> bool:
    """Whether all tensors are plain, and no derivative of any of them is asked for."""
    return is_constant(*arrays) and all(map(is_plain, _tensors_in(arrays)))


def _tensors_in(arrays: Any) -> list[Any]:
    return [array for array in arrays if isinstance(array, torch.Tensor)]


def _are_recorded(tensors: Any) -> bool:
    """Whether autograd records what is done with tensors."""
    # The compiler refuses `any` with a generator here.
    return torch.is_grad_enabled() and True in [tensor.requires_grad for tensor in tensors]


def block_factor() -> int:
    """Return how many times the memory that NumPy needs an operation needs to be worth its start on all threads."""
    return 4 * torch.get_num_threads()


def softmax(logits: Any, axes: tuple[int, ...], into: Any = None) -> Any:
    """Return the probabilities in one pass, but for rows that are too short for its vectors: None for these.

    None, too, on the CPU where the classes are not the last axis: the bits of a row then depend on its neighbours.
    """
    (axis, *more) = axes
    if more or not runs_at_once(logits) or not (logits.is_contiguous() or logits.is_cpu):
        return None
    if logits.is_cpu and (axis != logits.ndim - 1 or logits.stride(axis) != 1 or logits.shape[axis] < _SHORT):
        return None
    return torch.softmax(logits, axis, out=into)


def is_compiled_for_cpu(tensor: Any) -> bool:
    """Whether the compiler is at work, on what runs on one CPU."""
    return torch.compiler.is_compiling() and bool(tensor.is_cpu) and not hasattr(tensor, "placements")


def is_known(length: Any) -> bool:
    """Whether a length is known, also to the compiler, which takes unknown ones for integers."""
    if not torch.compiler.is_compiling():
        return isinstance(length, int)
    from torch.fx.experimental.symbolic_shapes import has_static_value  # which takes long to import

    return has_static_value(length)


def padded(tensor: Any, axis: int, number: int) -> Any:
    """Return a tensor with so many zeros after its entries along an axis."""
    return torch.nn.functional.pad(tensor, (0, 0) * (tensor.ndim - 1 - axis) + (0, number)) if number else tensor


def multiplies_narrow(tensor: Any) -> bool:
    """Whether a GPU multiplies a tensor as it is, many times faster than one of single precision."""
    return bool(tensor.is_cuda) and tensor.dtype == torch.bfloat16


def contracted(first: Any, second: Any, axes: tuple[int, int], dtype: Any, total: Any) -> Any:
    """Return the sums of products of two matrices along an axis of each, in a dtype whatever autocast would choose.

    They are added to a total if there is one, in its place where no graph is recorded.
    """
    first, second = first if axes[0] else first.T, second.T if axes[1] else second
    with _without_autocast(first.device.type):
        if multiplies_narrow(first) or multiplies_narrow(second):  # pragma: no cover - needs a GPU
            # The range is that of single precision.
            product = torch.mm(first.bfloat16(), second.bfloat16(), out_dtype=dtype)
            return product if total is None else total + product
        first, second = first.to(dtype), second.to(dtype)
        if total is None:
            return first @ second
        if is_constant(total, first, second) and runs_at_once(total):
            return total.addmm_(first, second)
        return torch.addmm(total, first, second)


def recomputed(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the function of tensors, and lists of them, of which autograd keeps nothing but these."""
    tensors = _tensors_in(torch.utils._pytree.tree_leaves(arguments))
    if not _are_recorded(tensors) or True in [_is_transformed(tensor) for tensor in tensors]:
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


def autocast_dtype(logits: Any) -> Any:
    """Return single precision for a loss of narrow logits within autocast."""
    kind = logits.device.type
    narrow = logits.dtype in (torch.float16, torch.bfloat16) and torch.amp.is_autocast_available(kind)
    return torch.float32 if narrow and torch.is_autocast_enabled(kind) else None


def _without_autocast(kind: str) -> AbstractContextManager[Any]:
    """Return a context without autocast, which some kinds of devices do not have at all."""
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def is_sharded(tensor: Any, axis: int) -> bool:
    """Whether a tensor is a DTensor that is split along an axis."""
    return any(placement.is_shard(axis) for placement in getattr(tensor, "placements", ()))


def replicated(tensor: Any, like: Any) -> Any:
    """Return a tensor as a DTensor that is whole on all devices, if another is a DTensor."""
    if not hasattr(like, "placements"):
        return tensor
    return _on_mesh(tensor, like.device_mesh)  # pragma: no cover - tested in processes of their own


def on_one_mesh(tensors: dict[str, Any]) -> dict[str, Any]:
    """Return tensors by their names: plain ones beside DTensors as DTensors, whole on all devices."""
    meshes = {name: tensor.device_mesh for name, tensor in tensors.items() if hasattr(tensor, "placements")}
    return _on_mesh_of(meshes, tensors) if meshes else tensors


def _on_mesh_of(
    meshes: dict[str, Any], tensors: dict[str, Any]
) -> dict[str, Any]:  # pragma: no cover - tested in processes of their own
    first, mesh = next(iter(meshes.items()))
    for name, other in meshes.items():
        if other != mesh:
            raise TypeError(
                f"{name} must lie on the device mesh of {first}, {mesh}, not on {other}: pass "
                f"distribute_tensor({name}.full_tensor(), {first}.device_mesh, [Replicate()] * {mesh.ndim})"
            )
    return {name: t if name in meshes else _on_mesh(t, mesh) for name, t in tensors.items()}


def _on_mesh(tensor: Any, mesh: Any) -> Any:  # pragma: no cover - tested in processes of their own
    from torch.distributed.tensor import DTensor, Replicate

    return DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)


def evaluate(function: Differentiable, *arrays: Any) -> Any:
    """Return the function's value, on a graph only where one is needed. It takes no options."""
    if torch.compiler.is_compiling():  # pragma: no cover - traced by the compiler, never run
        # It refuses a function with a rule for forward mode, and one that nothing requires a gradient of.
        is_recorded = _are_recorded(arrays[: function.variables])
        return _ReverseMode.apply(function, *arrays) if is_recorded else function.value(xp, *arrays)
    # A trace cannot hold a function with several results.
    if torch.jit.is_tracing() or is_constant(*arrays):
        return function.value(xp, *arrays)
    if _maps_nothing(*arrays):
        with retrieve_current_functorch_interpreter().lower():
            return evaluate(function, *arrays)
    is_recorded = _are_recorded(arrays[: function.variables])
    if function.value_and_gradient and is_recorded and not any(map(_is_transformed, arrays)):
        return _SavedGradient.apply(function, *arrays)[0]
    return _BothModes.apply(function, *arrays)


def _maps_nothing(*arrays: Any) -> bool:
    """Whether vmap is at work on other arrays than these, which its rule for functions with derivatives fails on."""
    level: Any = functorch.peek_interpreter_stack()
    if level is None or level.key() != functorch.TransformType.Vmap:
        return False
    return not any(_is_mapped(array, level.level()) for array in arrays)


def _is_mapped(tensor: Any, level: int) -> bool:
    """Whether a tensor, or what another transformation has wrapped in it, is mapped at a level."""
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor) and functorch.maybe_get_level(tensor) == level:
            return True
        tensor = functorch.get_unwrapped(tensor)
    return False


class _ReverseMode(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(function: Differentiable, *arrays: Any) -> Any:
        return function.value(xp, *arrays)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _output: Any) -> None:
        ctx.function, *arrays = inputs
        ctx.save_for_backward(*arrays)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        arrays = ctx.saved_tensors
        given = cotangents if len(cotangents) > 1 else cotangents[0]
        variables = ctx.function.variables
        gradients = ctx.function.gradients(xp, given, *arrays, wanted=ctx.needs_input_grad[1 : 1 + variables])
        return None, *gradients, *(None for _ in arrays[variables:])


class _BothModes(_ReverseMode):
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _ReverseMode.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def jvp(ctx: Any, _function: None, *tangents: Any) -> Any:
        given = zip(tangents[: ctx.function.variables], ctx.saved_tensors, strict=False)
        arrays = *(torch.zeros_like(x) if dx is None else dx for dx, x in given), *ctx.saved_tensors
        if not any(level.key() == functorch.TransformType.Jvp for level in retrieve_all_functorch_interpreters()):
            return ctx.function.jvp(xp, *arrays)[1]
        # PyTorch turns forward mode off here, so that an outer level of it would take the derivative for a constant.
        with forward_ad._set_fwd_grad_enabled(True):
            return ctx.function.jvp(xp, *map(_primal, arrays))[1]


def _primal(tensor: Any) -> Any:
    """Return a tensor without its tangent of the innermost level of forward mode."""
    if not functorch.is_batchedtensor(tensor):
        return forward_ad.unpack_dual(tensor).primal
    level, axis = functorch.maybe_get_level(tensor), functorch.maybe_get_bdim(tensor)
    return functorch._add_batch_dim(_primal(functorch.get_unwrapped(tensor)), axis, level)


class _SavedGradient(_BothModes):
    """Computes the gradient with the value, which shares most of its work, and keeps it for `backward`."""

    @staticmethod
    def forward(function: Differentiable, *arrays: Any) -> Any:
        wanted = tuple(array.requires_grad for array in arrays[: function.variables])
        value, gradients = function.value_and_gradients(xp, *arrays, wanted=wanted)
        return value, *gradients

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.function, *arrays = inputs
        ctx.mark_non_differentiable(*_tensors_in(output[1:]))
        ctx.is_own = torch._C._autograd._top_saved_tensors_default_hooks(True) is None  # and no one else's in between
        ctx.set_materialize_grads(False)  # of zeros for the gradient's cotangent, as large as the logits
        ctx.save_for_backward(*arrays, *output[1:])
        ctx.save_for_forward(*arrays)

    @staticmethod
    def backward(ctx: Any, cotangent: Any, *_: None) -> Any:
        saved, variables = ctx.saved_tensors, ctx.function.variables
        arrays, gradients = saved[:-variables], saved[-variables:]
        others = [None] * (len(arrays) - variables)
        if cotangent is None:  # nothing that follows depends on the value
            return None, *(None for _ in gradients), *others
        if torch.is_grad_enabled() or forward_ad._current_level >= 0:  # a second derivative may follow
            wanted = ctx.needs_input_grad[1 : 1 + variables]
            return None, *ctx.function.gradients(xp, cotangent, *arrays, wanted=wanted), *others
        # New memory would cost several times as much.
        is_free = ctx.is_own and runs_at_once(cotangent) and not torch._C._autograd._get_current_graph_task_keep_graph()
        product = torch.Tensor.mul_ if is_free else torch.mul
        products = (None if gradient is None else product(gradient, cotangent) for gradient in gradients)
        # Rounded after the product: a scale that keeps the product in a narrow dtype may come with the cotangent.
        rounded = (g if g is None else g.to(array.dtype) for g, array in zip(products, arrays, strict=False))
        return None, *rounded, *others

    @staticmethod
    def jvp(ctx: Any, function: None, *tangents: Any) -> Any:
        return _BothModes.jvp(ctx, function, *tangents), *(None for _ in range(ctx.function.variables))
