"""PyTorch, eager and traced, with the analytic derivatives for autograd and torch.func."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import array_api_compat.torch as xp
import torch
from torch.utils.checkpoint import checkpoint

from stable_softmax._core import trees
from stable_softmax._libraries import torch_internals as internals
from stable_softmax._libraries.differentiable import Differentiable
from stable_softmax._libraries.numpy import is_unsteady
from stable_softmax._libraries.standard import Library

_PLAIN = (torch.Tensor, torch.nn.Parameter)
# With fewer classes, PyTorch's softmax spends longer on incomplete vectors than separate passes take.
_SHORT = 48
# The compiler adds up to this many terms one after another.
_FEW = 16


class Torch(Library):
    """Tensors that are traced: by a compiler, a tracer or a function transform, or because they are of a subclass."""

    has_forms = True
    differentiates = True
    adds_as_tree = True

    def for_arrays(self, *arrays: Any) -> Library:
        if torch.compiler.is_compiling():  # pragma: no cover - traced, never run
            return TRACED
        for array in arrays:
            if type(array) not in _PLAIN or internals.is_followed(array):
                return TRACED
        if internals.has_dispatch_mode():
            return TRACED
        return ON_DEVICE if False in [array.is_cpu for array in arrays] else ON_CPU

    def is_known(self, length: Any) -> bool:
        return internals.is_static(length) if torch.compiler.is_compiling() else isinstance(length, int)

    def is_split(self, array: Any, axis: int) -> bool:
        """Whether a tensor is a DTensor that is split along an axis."""
        return any(placement.is_shard(axis) for placement in getattr(array, "placements", ()))

    def records(self, *arrays: Any) -> bool:
        if torch.compiler.is_compiling():  # pragma: no cover - traced, never run: it cannot trace what follows
            return True
        tensors = _tensors_in(arrays)
        if internals.is_in_forward_mode() or _are_recorded(tensors):
            return True
        return True in [internals.is_followed(tensor) for tensor in tensors]

    def dtype_object(self, dtype: Any) -> Any:
        return dtype

    def computed_dtype(self, dtype: Any) -> Any:
        return dtype

    def autocast_dtype(self, logits: Any) -> Any:
        """Return float32 for a loss of narrow logits within autocast."""
        kind = logits.device.type
        narrow = logits.dtype in (torch.float16, torch.bfloat16) and torch.amp.is_autocast_available(kind)
        return torch.float32 if narrow and torch.is_autocast_enabled(kind) else None

    def multiplies_narrow(self, array: Any) -> bool:
        """Whether a GPU multiplies a tensor directly, many times faster than one of float32."""
        return bool(array.is_cuda) and array.dtype == torch.bfloat16

    def on_one_mesh(self, arrays: dict[Any, Any]) -> dict[Any, Any]:
        """Return tensors by name; beside DTensors, plain tensors become DTensors that are whole on each device."""
        meshes = {name: tensor.device_mesh for name, tensor in arrays.items() if hasattr(tensor, "placements")}
        return _on_mesh_of(meshes, arrays) if meshes else arrays

    def without_gradient(self, array: Any) -> Any:
        return array.detach()

    def nan_where(self, condition: Any, values: Any) -> Any:
        # `where` with a NaN constant would have derivative 0.
        return values * torch.where(condition, torch.nan, torch.ones_like(values))

    def indices_along(self, length: int, like: Any, dtype: Any) -> Any:
        indices = xp.arange(length, dtype=dtype, device=like.device)
        if not hasattr(like, "placements"):
            return indices
        return _on_mesh(indices, like.device_mesh)  # pragma: no cover - tested in processes of their own

    def entries_along(self, rows: Any, indices: Any, axis: int) -> Any:
        return rows.gather(axis, indices)  # take_along_dim makes the compiler recompile for each size

    def tree_sum(self, terms: Any, axes: tuple[int, ...]) -> Any:
        is_for_cpu = torch.compiler.is_compiling() and bool(terms.is_cpu) and not hasattr(terms, "placements")
        return self.sum_in_vectors(terms, axes) if is_for_cpu else super().tree_sum(terms, axes)

    def sum_in_vectors(self, terms: Any, axes: tuple[int, ...]) -> Any:
        """Return the sum over axes, perhaps of unknown length, where the compiler adds vectors one by one."""
        lengths = [max(_FEW, self.longest_sum(terms, axis)) for axis in axes]
        long = [not self.is_known(terms.shape[i]) or terms.shape[i] > n for i, n in zip(axes, lengths, strict=True)]
        if True in long and terms.dtype == torch.float32:  # pragma: no cover - traced, never run
            # Blocks would keep the compiler from fusing other operations into the same loop.
            return xp.astype(xp.sum(terms, axis=axes, keepdims=True, dtype=torch.float64), terms.dtype)
        for axis, length in zip(axes, lengths, strict=True):
            while self.is_known(terms.shape[axis]) and terms.shape[axis] > length:
                terms = _padded(terms, axis, -terms.shape[axis] % length)
                blocks = (*terms.shape[:axis], terms.shape[axis] // length, length, *terms.shape[axis + 1 :])
                terms = xp.sum(xp.reshape(terms, blocks), axis=axis + 1)
            terms = xp.sum(terms, axis=axis, keepdims=True)
        return terms

    def longest_sum(self, terms: Any, axis: int) -> int:
        # Registers are added up one after another, and are filled in rounds of 16. Along any other axis than the last,
        # the number of rows determines which rows share a register.
        return 128 if self.sums_neighbours(terms, axis) else 1

    def sums_neighbours(self, terms: Any, axis: int) -> bool:
        return axis == terms.ndim - 1 and bool(terms.stride(axis) == 1)

    def contract(
        self, first: Any, second: Any, axes: tuple[int, int], dtype: Any, like: Any = None, total: Any = None
    ) -> Any:
        """Return the sums of products in a dtype, whatever autocast would choose."""
        del like
        first, second = first if axes[0] else first.T, second.T if axes[1] else second
        with _without_autocast(first.device.type):
            if self.multiplies_narrow(first) or self.multiplies_narrow(second):  # pragma: no cover - needs a GPU
                # bfloat16 has the range of float32.
                product = torch.mm(first.bfloat16(), second.bfloat16(), out_dtype=dtype)
                return product if total is None else total + product
            first, second = first.to(dtype), second.to(dtype)
            if total is None:
                return first @ second
            if self.overwrites(total, first, second):
                return total.addmm_(first, second)
            return torch.addmm(total, first, second)

    def overwrites(self, *_arrays: Any) -> bool:
        """Whether the first of these tensors may be overwritten by a result, since nothing else uses it."""
        return False

    def sweep_factor(self, weight: Any) -> int:
        return 16 if weight.is_cuda else 1

    def recomputed(self, function: Callable[..., Any], *arguments: Any) -> Any:
        tensors = _tensors_in(trees.arrays_of(arguments))
        if not _are_recorded(tensors) or True in [_is_transformed(tensor) for tensor in tensors]:
            return function(*arguments)
        return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)

    def evaluate(self, function: Differentiable, *arrays: Any, **options: Any) -> Any:
        """Return the function's value, recorded in a graph only if one is needed."""
        own = function.with_options(options)
        is_recorded = _are_recorded(arrays[: function.variables])
        if torch.compiler.is_compiling():  # pragma: no cover - traced by the compiler, never run
            # The compiler refuses functions with a rule for forward mode, and functions without a required gradient.
            return _ReverseMode.apply(own, *arrays) if is_recorded else own.value(self, *arrays)
        # A trace cannot hold a function with several results.
        if torch.jit.is_tracing() or not self.records(*arrays):
            return own.value(self, *arrays)
        if not internals.KNOWS_TRANSFORMATIONS:
            return _ReverseMode.apply(own, *arrays) if is_recorded else own.value(self, *arrays)
        is_done, values = internals.without_vmap(lambda *given: _of(given).evaluate(own, *given), *arrays)
        if is_done:
            return values
        if own.value_and_gradient and is_recorded and not any(map(_is_transformed, arrays)):
            return _SavedGradient.apply(own, *arrays)[0]
        return _BothModes.apply(own, *arrays)


class Eager(Torch):
    """Plain tensors on any device: operations run immediately, or in order."""

    has_softmax = True

    def overwrites(self, *arrays: Any) -> bool:
        return not self.records(*arrays)

    def pick(self, rows: Any, positions: Any) -> Any:
        indices, axis = positions
        return rows.gather(axis, indices)

    def put(self, rows: Any, positions: Any, values: Any) -> Any:
        indices, axis = positions
        if not isinstance(values, torch.Tensor):  # one number takes up to three times as long as one for each row
            values = torch.full_like(indices, values, dtype=rows.dtype)
        # Autograd may have saved rows that it records.
        return rows.scatter(axis, indices, values) if rows.requires_grad else rows.scatter_(axis, indices, values)

    def softmax(self, logits: Any, axes: tuple[int, ...], into: Any = None) -> Any:
        (axis, *more) = axes
        return torch.softmax(logits, axis, out=into) if not more and logits.is_contiguous() else None

    def accurate_softmax(self, _logits: Any, _axes: tuple[int, ...], _into: Any = None) -> Any:
        return None


class EagerOnCPU(Eager):
    """Plain tensors on the CPU: values can be read, memory can be written to, and operations take long to start."""

    reads_values = True
    writes = True
    adds_as_tree = False

    def softmax(self, logits: Any, axes: tuple[int, ...], into: Any = None) -> Any:
        """Return the probabilities in one pass; None for rows that are too short for its vectors.

        Also None if the classes are not the last axis: the bits of a row would then depend on its neighbours.
        """
        (axis, *more) = axes
        if more or axis != logits.ndim - 1 or logits.stride(axis) != 1 or logits.shape[axis] < _SHORT:
            return None
        return torch.softmax(logits, axis, out=into)

    def accurate_softmax(self, logits: Any, axes: tuple[int, ...], into: Any = None) -> Any:
        # Its vectors, of 32 bytes or more, are added up one after another, and then the entries of the sum.
        is_short = logits.shape[axes[0]] * logits.itemsize <= 512
        return self.softmax(logits, axes, into) if is_short else None

    def lie_within(self, values: Any, largest: float, smallest: float = 0.0) -> bool:
        if 0 in values.shape:
            return True
        least, most = torch.aminmax(values)
        return bool(least >= smallest and most <= largest)

    def strides_of(self, array: Any) -> tuple[int, ...]:
        return tuple(array.stride())

    def are_neighbours(self, array: Any, axis: int) -> bool:
        return bool(array.stride(axis) == 1)

    def with_neighbours(self, array: Any) -> Any:
        return array if array.stride(-1) == 1 else array.contiguous()

    def in_fixed_order(self, logits: Any, operands: Any, axis: int) -> tuple[Any, Any]:
        """Return arrays whose results have the same order in memory for any number of rows.

        Arrays are copied if results would be stored with another axis than the class axis closest together: if rows
        overlap or share memory, or if a mask or targets have another order in memory than the logits.
        """
        if not logits.is_contiguous() and is_unsteady(logits, logits.stride(), axis):
            logits = logits.contiguous()
        if axis == logits.ndim - 1:
            operands = trees.mapped(lambda a: a if a.shape[-1] == 1 else self.with_neighbours(a), operands)
        return logits, operands

    def block_factor(self) -> int:
        return 4 * torch.get_num_threads()  # larger blocks make a start on all threads pay off


def _of(arrays: tuple[Any, ...]) -> Any:
    """Return the library in its form for tensors, such as those that a custom function gets unwrapped."""
    return TRACED.for_arrays(*arrays)


def _is_transformed(tensor: Any) -> bool:
    """Whether a compiler, TorchScript's tracer or a function transform traces a tensor."""
    return torch.compiler.is_compiling() or internals.is_followed(tensor)


def _tensors_in(arrays: Any) -> list[Any]:
    return [array for array in arrays if isinstance(array, torch.Tensor)]


def _are_recorded(tensors: Any) -> bool:
    """Whether autograd records operations on any of these tensors."""
    # The compiler refuses `any` with a generator here.
    return torch.is_grad_enabled() and True in [tensor.requires_grad for tensor in tensors]


def _padded(tensor: Any, axis: int, number: int) -> Any:
    """Return a tensor with this number of zeros appended along an axis."""
    return torch.nn.functional.pad(tensor, (0, 0) * (tensor.ndim - 1 - axis) + (0, number)) if number else tensor


def _without_autocast(kind: str) -> AbstractContextManager[Any]:
    """Return a context without autocast, which some kinds of devices do not support."""
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


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
    """Return a tensor as a DTensor that is whole on all devices."""
    from torch.distributed.tensor import DTensor, Replicate

    return DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)


class _ReverseMode(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(function: Differentiable, *arrays: Any) -> Any:
        return function.value(_of(arrays), *arrays)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _output: Any) -> None:
        ctx.function, *arrays = inputs
        ctx.save_for_backward(*arrays)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        arrays = ctx.saved_tensors
        given = cotangents if len(cotangents) > 1 else cotangents[0]
        wanted = ctx.needs_input_grad[1 : 1 + ctx.function.variables]
        gradients = ctx.function.gradients(_of((*cotangents, *arrays)), given, *arrays, wanted=wanted)
        return None, *gradients, *(None for _ in arrays[ctx.function.variables :])


class _BothModes(_ReverseMode):
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _ReverseMode.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def jvp(ctx: Any, _function: None, *tangents: Any) -> Any:
        given = zip(tangents[: ctx.function.variables], ctx.saved_tensors, strict=False)
        arrays = *(torch.zeros_like(x) if dx is None else dx for dx, x in given), *ctx.saved_tensors
        if not internals.is_within_jvp():
            return ctx.function.jvp(_of(arrays), *arrays)[1]
        with internals.forward_mode():
            arrays = tuple(map(internals.primal_of, arrays))
            return ctx.function.jvp(_of(arrays), *arrays)[1]


class _SavedGradient(_BothModes):
    """Computes the gradient with the value, which shares most of its work, and keeps it for `backward`."""

    @staticmethod
    def forward(function: Differentiable, *arrays: Any) -> Any:
        wanted = tuple(array.requires_grad for array in arrays[: function.variables])
        value, gradients = function.value_and_gradients(_of(arrays), *arrays, wanted=wanted)
        return value, *gradients

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.function, *arrays = inputs
        ctx.mark_non_differentiable(*_tensors_in(output[1:]))
        ctx.is_own = not internals.has_hooks_on_saved_tensors()  # hooks could share the saved tensors
        ctx.set_materialize_grads(False)  # zeros for the gradient's cotangent would be as large as the logits
        ctx.save_for_backward(*arrays, *output[1:])
        ctx.save_for_forward(*arrays)

    @staticmethod
    def backward(ctx: Any, cotangent: Any, *_: None) -> Any:
        saved, variables = ctx.saved_tensors, ctx.function.variables
        arrays, gradients = saved[:-variables], saved[-variables:]
        others = [None] * (len(arrays) - variables)
        if cotangent is None:  # no later result depends on the value
            return None, *(None for _ in gradients), *others
        if torch.is_grad_enabled() or internals.is_in_forward_mode():  # a second derivative may follow
            wanted = ctx.needs_input_grad[1 : 1 + variables]
            library = _of((cotangent, *arrays))
            return None, *ctx.function.gradients(library, cotangent, *arrays, wanted=wanted), *others
        # New memory would take several times as long.
        is_free = ctx.is_own and _of((cotangent,)) is not TRACED and not internals.keeps_graph()
        product = torch.Tensor.mul_ if is_free else torch.mul
        products = (None if gradient is None else product(gradient, cotangent) for gradient in gradients)
        # Rounded after the product: the cotangent may carry a scale that keeps the product in range of a narrow dtype.
        rounded = (g if g is None else g.to(array.dtype) for g, array in zip(products, arrays, strict=False))
        return None, *rounded, *others

    @staticmethod
    def jvp(ctx: Any, function: None, *tangents: Any) -> Any:
        return _BothModes.jvp(ctx, function, *tangents), *(None for _ in range(ctx.function.variables))


TRACED = Torch(xp)
ON_DEVICE = Eager(xp)
ON_CPU = EagerOnCPU(xp)
#: Each call finds out which of the three applies.
LIBRARY = TRACED
