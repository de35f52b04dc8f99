"""Functions and modules with the names and arguments of `torch.nn.functional`, `torch` and `torch.nn`."""

from __future__ import annotations

import warnings
from typing import Any

import torch

import stable_softmax

__all__ = ["CrossEntropyLoss", "LogSoftmax", "Softmax", "cross_entropy", "log_softmax", "logsumexp", "softmax"]


def cross_entropy(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Return the cross-entropy with class ids or probabilities, as `torch.nn.functional.cross_entropy`.

    Examples
    --------
    >>> cross_entropy(torch.tensor([[20.0, 0.0]]), torch.tensor([0]))
    tensor(2.0612e-09)
    """
    kind = _reduction_of(reduction, size_average, reduce)
    are_ids = not target.is_floating_point()
    if not are_ids and ignore_index >= 0:
        raise ValueError(f"ignore_index needs class ids as target, but is {ignore_index} beside probabilities")
    loss = stable_softmax.softmax_crossentropy_with_logits(
        input,
        target,
        axis=min(1, input.ndim - 1),
        class_weights=weight,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index if are_ids else None,
        reduction=kind,
        # Only where it is needed: within autocast, losses of half precision are wider than their logits.
        dtype=None if are_ids or target.dtype == input.dtype else torch.promote_types(input.dtype, target.dtype),
    )
    if kind != "mean":
        return loss
    # PyTorch's mean over nothing is NaN, by intention: github.com/pytorch/pytorch/issues/70348.
    if are_ids:
        return loss.masked_fill(_nothing_counts(target, weight, ignore_index), torch.nan)
    return loss if target.numel() else loss + torch.nan


def softmax(
    input: torch.Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Return the softmax of `input` along `dim`, as `torch.nn.functional.softmax` and `torch.softmax`.

    Examples
    --------
    >>> softmax(torch.tensor([1000.0, 1000.0]), dim=0)
    tensor([0.5000, 0.5000])
    """
    return stable_softmax.softmax(*_logits_and_axis("softmax", input, dim, _stacklevel, dtype))


def log_softmax(
    input: torch.Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Return the logarithm of the softmax, as `torch.nn.functional.log_softmax` and `torch.log_softmax`.

    Examples
    --------
    >>> log_softmax(torch.tensor([20.0, 0.0]), dim=0)
    tensor([-2.0612e-09, -2.0000e+01])
    """
    return stable_softmax.log_softmax(*_logits_and_axis("log_softmax", input, dim, _stacklevel, dtype))


def logsumexp(input: torch.Tensor, dim: int | tuple[int, ...] | list[int], keepdim: bool = False) -> torch.Tensor:
    """Return the logarithm of the sum of the exponentials along `dim`, as `torch.logsumexp`.

    Examples
    --------
    >>> logsumexp(torch.tensor([100.0, 100.0]), dim=0)
    tensor(100.6931)
    """
    logits = input.to(torch.get_default_dtype()) if input.dtype == torch.bool else input
    axis = _axis_of(input, tuple(dim) if isinstance(dim, list) else dim)
    return stable_softmax.logsumexp(logits, axis, keepdims=bool(keepdim))


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """`torch.nn.CrossEntropyLoss`, with `cross_entropy` of this module."""

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class Softmax(torch.nn.Softmax):
    """`torch.nn.Softmax`, with `softmax` of this module."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the probabilities."""
        return softmax(input, self.dim, _stacklevel=6)


class LogSoftmax(torch.nn.LogSoftmax):
    """`torch.nn.LogSoftmax`, with `log_softmax` of this module."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities."""
        return log_softmax(input, self.dim, _stacklevel=6)


def _reduction_of(reduction: str, size_average: bool | None, reduce: bool | None) -> Any:
    """Return the reduction, which PyTorch's deprecated arguments override."""
    if size_average is None and reduce is None:
        return reduction
    named = "none" if reduce is False else "sum" if size_average is False else "mean"
    warnings.warn(f"size_average and reduce are deprecated, please write reduction={named!r}", stacklevel=3)
    return named


def _nothing_counts(class_ids: torch.Tensor, weight: torch.Tensor | None, ignore_index: int) -> torch.Tensor:
    """Return whether no example has a weight in the mean."""
    are_out = class_ids == ignore_index
    if weight is not None:
        # Ids to ignore may lie anywhere; where values cannot be checked, so may others.
        are_out = are_out | (weight == 0)[class_ids.long().clamp(0, weight.shape[0] - 1)]
    return are_out.all()


def _logits_and_axis(
    name: str, input: torch.Tensor, dim: int | None, stacklevel: int, dtype: torch.dtype | None
) -> tuple[torch.Tensor, Any]:
    if dim is None:
        dim = 0 if input.ndim in (0, 1, 3) else 1
        warnings.warn(f"{name} without dim is deprecated, please write dim={dim}", stacklevel=stacklevel)
    return input if dtype is None else input.to(dtype), _axis_of(input, dim)


def _axis_of(input: torch.Tensor, dim: Any) -> Any:
    """Return `dim`; a tensor without dimensions has the dims 0 and -1."""
    return None if input.ndim == 0 and dim in (0, -1, (0,), (-1,)) else dim
