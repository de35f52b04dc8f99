"""All private names of PyTorch; if a version lacks one, the safe case is assumed.

A tensor then counts as traced by a function transform, and no memory may be overwritten: slower, but right.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

import torch


def _internals(module: str, *names: str) -> Any:
    """Return the attributes of a module of PyTorch by name; None for each if one of them is missing."""
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
    """Whether TorchScript's tracer or a function transform traces a tensor."""
    if _TRACING_STATE is None or _IS_WRAPPED is None:
        return True
    return _TRACING_STATE() is not None or _IS_WRAPPED(tensor) or _IS_LEGACY_BATCHED(tensor)


def has_dispatch_mode() -> bool:
    """Whether a dispatch mode intercepts the operations of PyTorch."""
    return _DISPATCH_MODES is None or _DISPATCH_MODES() > 0


def is_in_forward_mode() -> bool:
    """Whether a level of forward mode is active."""
    level = getattr(torch.autograd.forward_ad, "_current_level", 0)
    return bool(level >= 0)


def is_static(length: Any) -> bool:  # pragma: no cover - traced by the compiler, never run
    """Whether the compiler knows a length; it also treats unknown lengths as integers."""
    try:
        from torch.fx.experimental.symbolic_shapes import has_static_value  # slow to import
    except ImportError:
        return False
    return has_static_value(length)


def has_hooks_on_saved_tensors() -> bool:
    """Whether a hook may share the tensors that autograd saves."""
    return _HOOKS is None or _HOOKS(True) is not None


def keeps_graph() -> bool:
    """Whether the current graph may be differentiated again."""
    return _KEEPS_GRAPH is None or bool(_KEEPS_GRAPH())


def without_vmap(function: Callable[..., Any], *arrays: Any) -> tuple[bool, Any]:
    """Return whether vmap is active, but maps none of these arrays, and if so, the function of them outside vmap.

    The rule of vmap for functions with derivatives fails on such arrays.
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
    """Whether a tensor, or one that it wraps, is mapped at a level of vmap."""
    while _IS_WRAPPED(tensor):
        if _IS_BATCHED(tensor) and _LEVEL_OF(tensor) == level:
            return True
        tensor = _UNWRAPPED(tensor)
    return False


def is_within_jvp() -> bool:
    """Whether a function transform for forward mode is active."""
    return any(level.key() == _TRANSFORMS.Jvp for level in _TRANSFORMATIONS())


def forward_mode() -> AbstractContextManager[Any]:
    """Return a context with forward mode, which PyTorch turns off within its rules.

    Without it, an outer level of forward mode would treat the derivative as a constant.
    """
    return _WITH_FORWARD_MODE(True)


def primal_of(tensor: Any) -> Any:
    """Return a tensor without its tangent at the innermost level of forward mode."""
    if not _IS_BATCHED(tensor):
        return torch.autograd.forward_ad.unpack_dual(tensor).primal
    level, axis = _LEVEL_OF(tensor), _AXIS_OF(tensor)
    return _BATCHED(primal_of(_UNWRAPPED(tensor)), axis, level)
