"""Partial logsumexp and loss over some of the classes: parts merge in any order, also across processes."""

from collections.abc import Callable
from typing import Any, NamedTuple

from stable_softmax._arguments.parts import check_labels, criterion_of_losses, part_of_classes
from stable_softmax._arguments.types import AnyArray, Reduction
from stable_softmax._core import trees
from stable_softmax._execution.run import apply, run, total
from stable_softmax._libraries import library_of
from stable_softmax._libraries.standard import Library
from stable_softmax._maths import kernels, merging, pieces

#: Which options the fields come from that both statistics must have, or neither.
_FROM = {
    "lag": "labels (reference_answers)",
    "class_weight": "class_weights",
    "smoothing_lag": "label_smoothing",
    "example_weight": "example_weights or ignore_index",
}


class SoftmaxStatistics(NamedTuple):
    """The partial logsumexp and loss of each example over some of the classes, from `softmax_statistics`.

    A tuple of arrays with one entry for each example, and so a pytree for JAX, `torch.func` and their compilers. Their
    dtype is that of the computation: at least float32.

    Examples
    --------
    >>> import numpy as np
    >>> logits, reference_answers = np.asarray([[50.0, 0.0, 0.0, 0.0]]), np.asarray([0])
    >>> first = softmax_statistics(logits[:, :2], reference_answers)
    >>> second = softmax_statistics(logits[:, 2:], reference_answers, first_class=2)
    >>> first.merge(second).crossentropy()
    array([5.78624954e-22])
    """

    #: The largest logit.
    maximum: Any
    #: The sum of ``exp(logit - 4 * floor(maximum / 4))`` over all logits but one of the largest.
    tail: Any
    #: The rounding error of the tail, to be added to it.
    tail_error: Any
    #: Distance of the label's logit below the maximum; 0 if the label is not among these classes. None without labels.
    lag: Any = None
    #: 1 if the label is among these classes, else 0. None without labels.
    weight: Any = None
    #: The class weight of the label; 0 if it is not among these classes. None without class weights.
    class_weight: Any = None
    #: The sum of class weight times distance below the maximum, in units of 2**20 nats. None without smoothing.
    smoothing_lag: Any = None
    #: The sum of the class weights. None without smoothing.
    smoothing_weight: Any = None
    #: The number of classes. None without smoothing.
    classes: Any = None
    #: The option of the same name. None without smoothing.
    label_smoothing: Any = None
    #: What the example counts: 0 if it is ignored. None if all count 1.
    example_weight: Any = None

    def merge(self, other: "SoftmaxStatistics") -> "SoftmaxStatistics":
        """Return the statistics of the union of two disjoint sets of classes.

        Parts merge in any order and tree, as accurately as all classes at once. Those of no classes change nothing.

        Parameters
        ----------
        other : SoftmaxStatistics
            Statistics of the same examples, of the same dtype, and with the same options.

        Raises
        ------
        TypeError, ValueError
            If `other` is not as above.

        Examples
        --------
        >>> import numpy as np
        >>> float(softmax_statistics(np.zeros(3)).merge(softmax_statistics(np.zeros(1))).logsumexp())
        1.3862943611198906
        """
        if not isinstance(other, SoftmaxStatistics):
            raise TypeError(f"other must be SoftmaxStatistics, not {type(other).__qualname__}")
        for name, options in _FROM.items():
            if (getattr(self, name) is None) != (getattr(other, name) is None):
                raise ValueError(f"either both statistics must have {options}, or neither")
        if tuple(self.maximum.shape) != tuple(other.maximum.shape):
            raise ValueError(
                f"other must have the examples of these statistics, {tuple(self.maximum.shape)}, "
                f"not {tuple(other.maximum.shape)}"
            )
        if self.maximum.dtype != other.maximum.dtype:
            raise TypeError(
                f"other must have the dtype of these statistics, {self.maximum.dtype}, not {other.maximum.dtype}"
            )
        first, second = self._on_one_mesh(other)
        return apply(merging.merged, self._lib, first, second, like=first)

    def merge_over(self, maximum: Callable[[Any], Any], total: Callable[[Any], Any]) -> "SoftmaxStatistics":
        """Return the statistics of all classes, on each of several processes that hold disjoint sets of them.

        Parameters
        ----------
        maximum, total : callable
            Return the elementwise maximum and sum of an array over all processes, as ``jax.lax.pmax`` and
            ``jax.lax.psum`` do, or an all-reduce of `torch.distributed`. Each is called once. `maximum` gets one number
            for each example; `total` gets four, or eight with labels, one more with class weights, and five more with
            smoothing. Only `total` is differentiated.

        Examples
        --------
        >>> import jax
        >>> import jax.numpy as jnp
        >>> def merged(logits):
        ...     statistics = softmax_statistics(logits)
        ...     return statistics.merge_over(lambda a: jax.lax.pmax(a, "i"), lambda a: jax.lax.psum(a, "i")).logsumexp()
        >>> print(jax.vmap(merged, axis_name="i")(jnp.zeros((2, 2))))
        [1.3862944 1.3862944]
        """
        lib = self._lib
        peak = merging.Peak(maximum(lib.without_gradient(self.maximum)))
        own = apply(merging.shares, lib, self, peak, like=merging.form_of_shares(self))
        of_all = total(lib.xp.stack(trees.arrays_of(own)))
        totals = [of_all[i, ...] for i in range(of_all.shape[0])]
        merged: SoftmaxStatistics = apply(merging.part_of_all, lib, self, peak, totals, like=self)
        return merged

    def logsumexp(self) -> Any:
        """Return the logsumexp of the logits of each example, in nats, as the function `logsumexp` does.

        It is 0 for examples that are ignored.

        Examples
        --------
        >>> import numpy as np
        >>> float(softmax_statistics(np.asarray([1000.0, 1000.0])).logsumexp())
        1000.6931471805599
        """
        return apply(pieces.logsumexp_of_statistics, self._lib, self)

    def crossentropy(self, *, z_loss: "float | AnyArray" = 0.0, reduction: Reduction = "none") -> Any:
        """Return the loss of each example, in nats, as `softmax_crossentropy_with_logits` does, with all its options.

        The options that concern classes or labels are those of `softmax_statistics`.

        Parameters
        ----------
        z_loss : float in [0, half the largest number of the dtype], or 0-d array
            Coefficient of the penalty ``z_loss * logsumexp**2``, which is added to each loss.
        reduction : {"none", "mean", "sum"}
            "mean" divides the sum by the sum of the example weights times the class weights of the labels, which are 1
            where they are not given; ignored examples do not count.

        Raises
        ------
        TypeError, ValueError
            If there are no labels, or an option is not as above. On eager CPU arrays, also if a label is in no part or
            in several parts; elsewhere, the loss of that example is NaN.

        Examples
        --------
        >>> import numpy as np
        >>> float(softmax_statistics(np.asarray([1.0, 1.0]), np.asarray(0)).crossentropy())
        0.6931471805599453
        """
        if self.lag is None:
            raise ValueError("the loss needs statistics with labels: pass reference_answers to softmax_statistics")
        lib, own = self._lib, (self.example_weight, self.class_weight, self.label_smoothing)
        criterion = criterion_of_losses(self.maximum, *own, z_loss, reduction)
        check_labels(lib, self.weight, self.example_weight)
        losses = apply(pieces.losses_of_part, lib, self, criterion)
        return losses if reduction == "none" else lib.result(total(lib, losses))

    def _on_one_mesh(self, other: "SoftmaxStatistics") -> "list[SoftmaxStatistics]":
        """Return both statistics, on one device mesh if PyTorch has split either over devices."""
        pairs = [
            self._lib.on_one_mesh({name: own, f"other.{name}": their}).values() if own is not None else (None, None)
            for name, own, their in zip(self._fields, self, other, strict=True)
        ]
        return [SoftmaxStatistics(*arrays) for arrays in zip(*pairs, strict=True)]

    @property
    def _lib(self) -> Library:
        return library_of(self.maximum)


# Quoted, so that `help` shows names and not private paths; postponing all annotations would show `ForwardRef`s above.
def softmax_statistics(
    logits: "AnyArray",
    reference_answers: "AnyArray | None" = None,
    axis: int = -1,
    *,
    first_class: "int | AnyArray" = 0,
    where: "AnyArray | None" = None,
    class_weights: "AnyArray | None" = None,
    example_weights: "AnyArray | None" = None,
    label_smoothing: "float | AnyArray" = 0.0,
    ignore_index: int | None = None,
) -> "SoftmaxStatistics":
    """Return the partial logsumexp and loss of each example over some of the classes.

    Parameters
    ----------
    logits : array (..., C, ...)
        The logits of C consecutive classes, where C may be 0, of any real floating or integer dtype.
    reference_answers : integer array of the shape of `logits` without `axis`, optional
        The labels: the class id of each example, among all classes. Only the loss needs them.
    axis : int
        The axis that holds the classes.
    first_class : int, or 0-d integer array
        The class id of the first of these classes, at least 0. If it is negative but cannot be read, no label is found.
    where : boolean array that broadcasts to `logits`, optional
        Mask of these classes. Those that it excludes count in no part, whatever their logits are.
    class_weights : array (C,), optional
        The weight of each of these classes, finite and not negative.
    example_weights : array of the shape of `logits` without `axis`, optional
        What each example counts, the same in all parts. An example of weight 0 is ignored, whatever its logits and its
        label are.
    label_smoothing : float or 0-d array
        Share of the target to spread evenly over all classes that are kept, in [0, 1], the same in all parts.
    ignore_index : int, optional
        The label of examples to ignore, the same in all parts: their loss and gradient are 0.

    Returns
    -------
    SoftmaxStatistics

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape or range is not as above, or an option of labels is given without labels.

    Notes
    -----
    The statistics are the maximum ``m``, the sum of ``exp(z - m)`` without the maximum's own 1, which would round away
    what a confident prediction leaves to the others, and ``m - z_y``. Parts merge by rescaling, as in the online
    softmax (Milakov and Gimelshein 2018, arXiv 1805.02867), but by powers of ``exp(4)``, and rounding errors are
    carried along, so that a thousand parts are as accurate as one.

    Examples
    --------
    >>> import numpy as np
    >>> logits, reference_answers = np.asarray([[50.0, 0.0, 0.0, 0.0]]), np.asarray([3])
    >>> parts = [softmax_statistics(logits[:, i : i + 2], reference_answers, first_class=i) for i in (0, 2)]
    >>> float(parts[0].merge(parts[1]).crossentropy()[0])
    50.0

    Of two examples, the label of one is padding:

    >>> logits, labels = np.asarray([[1.0, 1.0], [9.0, 2.0]]), np.asarray([0, -100])
    >>> parts = [softmax_statistics(logits[:, i : i + 1], labels, first_class=i, ignore_index=-100) for i in (0, 1)]
    >>> float(parts[0].merge(parts[1]).crossentropy(reduction="mean"))
    0.6931471805599453
    """
    part = part_of_classes(
        logits,
        reference_answers,
        axis,
        first_class,
        where=where,
        class_weights=class_weights,
        example_weights=example_weights,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
    )
    lib, axes, criterion = part.lib, part.layout.axes, part.criterion
    names = pieces.names_of_statistics(criterion)
    fields = dict(
        zip(names, run(kernels.STATISTICS[len(names)], lib, part.layout, part.logits, criterion), strict=True)
    )
    if reference_answers is None:
        fields["lag"] = fields["weight"] = None
    if "smoothing_lag" in fields:
        fields["label_smoothing"] = lib.squeeze(criterion.label_smoothing, axes)
    if criterion.example_weights is not None:
        fields["example_weight"] = lib.squeeze(criterion.example_weights, axes)
    return SoftmaxStatistics(tail_error=lib.xp.zeros_like(fields["tail"]), **fields)
