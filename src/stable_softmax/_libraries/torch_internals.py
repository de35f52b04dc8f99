"""All that PyTorch does not make public; where a version has not got it, what is true of every version is assumed.

A tensor is then taken to be followed by a transformation, and nothing to be free to be overwritten: slower, but right.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

import torch


def _internals(module: str, *names: str) -> Any:
    """Return what PyTorch has under names in a module; None for each, if one of them is missing."""
    try:
        return [getattr(import_module(module), name) for name in names]
    except (ImportError, AttributeError):
        return [None for _ in names]


(_IS_WRAPPED, _IS_LEGACY_BATCHED, _IS_BATCHED, _UNWRAPPED, _LEVEL_OF, _AXIS_OF, _BATCHED, _INNERMOST, _TRANSFORMS) = (
    _internals(
        "torch._C._functorch",
        "is_functorch_wrapped_tensor",
        "is_legacy_batchedtensor",
        "is_batchedtensor",
        "get_unwrapped",
        "maybe_get_level",
        "maybe_get_bdim",
        "_add_batch_dim",
        "peek_interpreter_stack",
        "TransformType",
    )
)
_TRANSFORMATION, _TRANSFORMATIONS = _internals(
    "torch._functorch.pyfunctorch",
    "retrieve_current_functorch_interpreter",
    "retrieve_all_functorch_interpreters",
)
(_DISPATCH_MODES,) = _internals("torch._C", "_len_torch_dispatch_stack")
(_TRACING_STATE,) = _internals("torch._C", "_get_tracing_state")
(_WITH_FORWARD_MODE,) = _internals("torch.autograd.forward_ad", "_set_fwd_grad_enabled")
(_HOOKS,) = _internals("torch._C._autograd", "_top_saved_tensors_default_hooks")
(_KEEPS_GRAPH,) = _internals("torch._C._autograd", "_get_current_graph_task_keep_graph")


#: Whether custom functions can be told what follows them. Without it, a derivative of a derivative may be lost.
KNOWS_TRANSFORMATIONS = None not in (_INNERMOST, _TRANSFORMATION, _WITH_FORWARD_MODE, _TRACING_STATE)


def is_followed(tensor: Any) -> bool:
    """Whether TorchScript's tracer or a transformation of functions follows what is done with a tensor."""
    if _TRACING_STATE is None or _IS_WRAPPED is None:
        return True
    return _TRACING_STATE() is not None or _IS_WRAPPED(tensor) or _IS_LEGACY_BATCHED(tensor)


def has_dispatch_mode() -> bool:
    """Whether something is told of each operation in the place of PyTorch."""
    return _DISPATCH_MODES is None or _DISPATCH_MODES() > 0


def is_in_forward_mode() -> bool:
    """Whether there is a level of forward mode."""
    level = getattr(torch.autograd.forward_ad, "_current_level", 0)
    return bool(level >= 0)


def is_static(length: Any) -> bool:  # pragma: no cover - traced by the compiler, never run
    """Whether the compiler knows a length. It takes unknown ones for integers."""
    try:
        from torch.fx.experimental.symbolic_shapes import has_static_value  # which takes long to import
    except ImportError:
        return False
    return has_static_value(length)


def has_hooks_on_saved_tensors() -> bool:
    """Whether somebody else may get what autograd saves."""
    return _HOOKS is None or _HOOKS(True) is not None


def keeps_graph() -> bool:
    """Whether the graph that goes backward may do so again."""
    return _KEEPS_GRAPH is None or bool(_KEEPS_GRAPH())


def without_vmap(function: Callable[..., Any], *arrays: Any) -> tuple[bool, Any]:
    """Return whether vmap is at work on other arrays than these, and then the function of them, outside of it.

    Its rule for functions with derivatives fails on such.
    """
    innermost = _INNERMOST()
    if innermost is None or innermost.key() != _TRANSFORMS.Vmap:
        return False, None
    level = innermost.level()
    if any(_is_mapped(array, level) for array in arrays):
        return False, None
    with _TRANSFORMATION().lower():
        return True, function(*arrays)


def _is_mapped(tensor: Any, level: int) -> bool:
    """Whether a tensor, or what another transformation has wrapped in it, is mapped at a level."""
    while _IS_WRAPPED(tensor):
        if _IS_BATCHED(tensor) and _LEVEL_OF(tensor) == level:
            return True
        tensor = _UNWRAPPED(tensor)
    return False


def is_within_jvp() -> bool:
    """Whether a transformation to forward mode is at work."""
    return any(level.key() == _TRANSFORMS.Jvp for level in _TRANSFORMATIONS())


def forward_mode() -> AbstractContextManager[Any]:
    """Return a context with forward mode, which PyTorch turns off within rules for it.

    An outer level of it would take the derivative for a constant.
    """
    return _WITH_FORWARD_MODE(True)


def primal_of(tensor: Any) -> Any:
    """Return a tensor without its tangent of the innermost level of forward mode."""
    if not _IS_BATCHED(tensor):
        return torch.autograd.forward_ad.unpack_dual(tensor).primal
    level, axis = _LEVEL_OF(tensor), _AXIS_OF(tensor)
    return _BATCHED(primal_of(_UNWRAPPED(tensor)), axis, level)
