"""Partial logsumexp and loss over some of the classes: parts merge in any order, wherever they lie."""

from collections.abc import Callable
from typing import Any, NamedTuple

from stable_softmax._arguments.parts import check_labels, part_of_classes
from stable_softmax._arguments.types import AnyArray
from stable_softmax._execution.run import apply, run
from stable_softmax._libraries import library_of
from stable_softmax._libraries.standard import Library
from stable_softmax._maths import kernels, merging


class SoftmaxStatistics(NamedTuple):
    """The partial logsumexp and loss of each example over some of the classes, from `softmax_statistics`.

    A tuple of arrays with one entry for each example, and so a pytree for JAX, `torch.func` and their compilers. All
    have the dtype of the computation: at least single precision.

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
    #: What rounding has left out of the tail.
    tail_error: Any
    #: Distance of the label's logit below the maximum; 0 if the label is not among these classes. None without labels.
    lag: Any
    #: 1 if the label is among these classes, else 0. None without labels.
    weight: Any

    def merge(self, other: "SoftmaxStatistics") -> "SoftmaxStatistics":
        """Return the statistics of two disjoint sets of classes together.

        In any order, and in any tree: the results are as accurate as those of all classes at once. Statistics of no
        classes change nothing.

        Parameters
        ----------
        other : SoftmaxStatistics
            Of the same examples and dtype, and with reference answers if these have some.

        Raises
        ------
        TypeError, ValueError
            Where `other` is not as above.

        Examples
        --------
        >>> import numpy as np
        >>> float(softmax_statistics(np.zeros(3)).merge(softmax_statistics(np.zeros(1))).logsumexp())
        1.3862943611198906
        """
        if not isinstance(other, SoftmaxStatistics):
            raise TypeError(f"other must be SoftmaxStatistics, not {type(other).__qualname__}")
        if (self.lag is None) != (other.lag is None):
            raise ValueError("either both statistics must have reference answers, or none")
        if tuple(self.maximum.shape) != tuple(other.maximum.shape):
            raise ValueError(
                f"other must have the examples of these statistics, {tuple(self.maximum.shape)}, "
                f"not {tuple(other.maximum.shape)}"
            )
        if self.maximum.dtype != other.maximum.dtype:
            raise TypeError(
                f"other must have the dtype of these statistics, {self.maximum.dtype}, not {other.maximum.dtype}"
            )
        first, second = self._beside(other)
        return apply(merging.merged, self._lib, first, second, like=first)

    def merge_over(self, maximum: Callable[[Any], Any], total: Callable[[Any], Any]) -> "SoftmaxStatistics":
        """Return the statistics of the disjoint sets of classes that several processes have, on each of them.

        Parameters
        ----------
        maximum, total : callable
            Return the elementwise maximum, and the sum, of an array over all processes, as ``jax.lax.pmax`` and
            ``jax.lax.psum`` do, or an all-reduce of `torch.distributed`. Each is called once: with one number for
            each example, and with four, or eight where there are answers. Derivatives go through the sum alone.

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
        like = merging.Shares(*self[:1] * (4 if self.lag is None else 8))
        own = apply(merging.shares, lib, self, peak, like=like)
        of_all = total(lib.xp.stack([share for share in own if share is not None]))
        shares = merging.Shares(*(of_all[i, ...] for i in range(of_all.shape[0])))
        merged: SoftmaxStatistics = apply(merging.whole, lib, self, peak, shares, like=self)
        return merged

    def logsumexp(self) -> Any:
        """Return the logarithm of the sum of the exponentials of all logits, as `logsumexp` does.

        Examples
        --------
        >>> import numpy as np
        >>> float(softmax_statistics(np.asarray([1000.0, 1000.0])).logsumexp())
        1000.6931471805599
        """
        return apply(merging.logsumexp, self._lib, self)

    def crossentropy(self) -> Any:
        """Return the loss of each example, in nats, as `softmax_crossentropy_with_logits` does.

        Raises
        ------
        ValueError
            Without labels. Also, on eager CPU arrays, for a label that is in no part or in two parts; elsewhere that
            example's loss is NaN.

        Examples
        --------
        >>> import numpy as np
        >>> float(softmax_statistics(np.asarray([1.0, 1.0]), np.asarray(0)).crossentropy())
        0.6931471805599453
        """
        if self.lag is None:
            raise ValueError("the loss needs statistics with reference answers")
        check_labels(self._lib, self.weight)
        return apply(merging.crossentropy, self._lib, self)

    def _beside(self, other: "SoftmaxStatistics") -> "list[SoftmaxStatistics]":
        """Return both, where PyTorch has split one over devices as it needs them together."""
        pairs = [
            self._lib.on_one_mesh({name: own, f"other.{name}": their}).values() if own is not None else (None, None)
            for name, own, their in zip(self._fields, self, other, strict=True)
        ]
        return [SoftmaxStatistics(*arrays) for arrays in zip(*pairs, strict=True)]

    @property
    def _lib(self) -> Library:
        return library_of(self.maximum)


def softmax_statistics(
    logits: AnyArray,
    reference_answers: AnyArray | None = None,
    axis: int = -1,
    *,
    first_class: int | AnyArray = 0,
) -> SoftmaxStatistics:
    """Return the partial logsumexp and loss of each example over some of the classes.

    Parameters
    ----------
    logits : array (..., C, ...)
        The logits of C consecutive classes, or of none, of any real floating or integer dtype.
    reference_answers : integer array of the shape of `logits` without `axis`, optional
        The labels: the class id of each example, among all classes. The loss needs them.
    axis : int
        The axis that holds the classes.
    first_class : int, or integer array ()
        The class id of the first of these classes, not negative. Where its value cannot be read and is negative, no
        class id is one of these classes.

    Returns
    -------
    SoftmaxStatistics

    Raises
    ------
    TypeError, ValueError
        Where an argument's type, dtype or shape is not as above.

    Notes
    -----
    The maximum ``m``, the sum of ``exp(z - m)`` over all but one of the maximal logits, and ``m - z_y``: nothing of a
    confident prediction is lost beside the maximum's own 1. As in the online softmax (Milakov and Gimelshein 2018,
    arXiv 1805.02867), parts merge by rescaling; here by powers of ``exp(4)``, and with the rounding errors carried
    along, so that a thousand parts are as good as one.

    Examples
    --------
    >>> import numpy as np
    >>> logits, reference_answers = np.asarray([[50.0, 0.0, 0.0, 0.0]]), np.asarray([3])
    >>> parts = [softmax_statistics(logits[:, i : i + 2], reference_answers, first_class=i) for i in (0, 2)]
    >>> float(parts[0].merge(parts[1]).crossentropy()[0])
    50.0
    """
    part = part_of_classes(logits, reference_answers, axis, first_class)
    maximum, tail, lag, weight = run(kernels.STATISTICS, part.lib, part.layout, part.logits, part.class_ids)
    label = (None, None) if reference_answers is None else (lag, weight)
    return SoftmaxStatistics(maximum, tail, part.lib.xp.zeros_like(tail), *label)
