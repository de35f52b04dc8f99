"""The exact results for millions of rows: the definitions in extended precision, without this library's code.

x86's extended precision has 64 significant bits, 11 more than float64, and exponents down to 2 to the power -16445.
"""

import numpy as np

from stable_softmax.reference.bounds import error_shares
from stable_softmax.reference.exact import Exact, exact_rows

QUANTITIES = ("softmax", "log_softmax", "crossentropy", "gradient")
#: The largest part of the contract's bound that may be the oracle's own error.
LARGEST_ORACLE_SHARE = 1 / 20
_MOST_CLASSES_IN_BALLS = 64


def require_extended_precision():
    """Stop on platforms where C's long double is nothing more than a double."""
    if np.finfo(np.longdouble).nmant < 63:
        raise SystemExit("the soak test needs a long double of at least 64 significant bits, as on x86")


def oracle_rows(logits, class_ids):
    """Return what is exact in all but the last bits, for rows that have a finite maximum."""
    z = logits.astype(np.longdouble)
    rows = np.arange(len(z))
    top = np.argmax(logits, axis=1)
    distances = z - z[rows, top][:, None]
    exponentials = np.exp(distances)
    beside_top = _sum_without(exponentials, top)
    # p_y - 1 cancels; by definition it is the other classes' part of the total.
    beside_label = _sum_without(exponentials, class_ids)
    total = 1 + beside_top
    probabilities = exponentials / total[:, None]
    log_probabilities = distances - np.log1p(beside_top)[:, None]
    gradient = probabilities.copy()
    gradient[rows, class_ids] = -beside_label / total
    return {
        "softmax": _exact(probabilities),
        "log_softmax": _exact(log_probabilities),
        "crossentropy": _exact(-log_probabilities[rows, class_ids]),
        "gradient": _exact(gradient),
    }


def oracle_error_share(oracle, logits, class_ids, dtype, chosen):
    """Return the oracle's largest error against ball arithmetic, in the `chosen` rows, as a share of the bound."""
    if logits.shape[1] > _MOST_CLASSES_IN_BALLS or not chosen.size:
        return 0.0
    proven = exact_rows(logits[chosen], class_ids[chosen])
    return max(_largest(_between(oracle[name], getattr(proven, name), logits, dtype, chosen)) for name in QUANTITIES)


def _sum_without(terms, class_ids):
    kept = terms.copy()
    kept[np.arange(len(kept)), class_ids] = 0
    return kept.sum(axis=1)


def _exact(values):
    with np.errstate(over="ignore", under="ignore"):
        nearest = values.astype(np.float64)
        finite = np.isfinite(nearest)
        lacking = np.subtract(values, nearest, out=np.zeros_like(values), where=finite).astype(np.float64)
    return Exact(nearest, lacking)


def _between(oracle, proven, logits, dtype, chosen):
    """Return the shares of the differences between two values that both are sums of two doubles."""
    difference = Exact(proven.nearest, proven.lacking - oracle.lacking[chosen])
    return error_shares(oracle.nearest[chosen], difference, logits[chosen], dtype)


def _largest(shares):
    return float(np.where(np.isnan(shares), np.inf, shares).max())
