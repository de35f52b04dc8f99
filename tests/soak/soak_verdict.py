"""What became of one batch: the largest errors, and the first row that broke the contract."""

import numpy as np
from soak_oracle import QUANTITIES, oracle_error_share, oracle_rows
from soak_rows import class_axis, drawn_batch

from stable_softmax.reference.bounds import error_shares

_ROWS_IN_BALLS = 20
_MOST_CLASSES_SHOWN = 16


def verdict(call, seed, backend, dtype, index):
    """Try a batch, and return its record, of nothing but what JSON holds."""
    logits, class_ids = drawn_batch(seed, backend, dtype, index)
    results = call(logits, class_ids, dtype, class_axis(index))
    with np.errstate(invalid="ignore"):
        ordinary = np.isfinite(logits.max(axis=1))
    oracle = oracle_rows(logits[ordinary], class_ids[ordinary])
    shares = {name: _row_shares(results[name], oracle[name], logits, ordinary, dtype) for name in QUANTITIES}
    broken = _inexact_zeros(results, logits, class_ids, ordinary)
    for row_shares in shares.values():
        broken |= ~(row_shares <= 1)
    return {
        "rows": len(logits),
        "classes": logits.shape[1],
        "shares": {name: float(row_shares.max()) for name, row_shares in shares.items()},
        "oracle": _oracle_share(oracle, logits[ordinary], class_ids[ordinary], dtype, index),
        "violations": int(broken.sum()),
        "first": _reproduction(logits, class_ids, shares, int(np.argmax(broken))) if broken.any() else None,
    }


def _row_shares(values, oracle, logits, ordinary, dtype):
    """Return the largest share of the bound in each row, and infinity where NaN came or stayed away wrongly."""
    shares = np.empty(len(logits))
    within = error_shares(values[ordinary], oracle, logits[ordinary], dtype)
    shares[ordinary] = _by_row(np.where(np.isnan(within), np.inf, within), np.max)
    # A row with NaN, with +inf, or of nothing but -inf gives NaN throughout.
    shares[~ordinary] = np.where(_by_row(np.isnan(values[~ordinary]), np.all), 0, np.inf)
    return shares


def _by_row(values, reduction):
    return values if values.ndim == 1 else reduction(values, axis=1)


def _inexact_zeros(results, logits, class_ids, ordinary):
    """Return the rows in which a class of -inf has a probability or gradient other than 0."""
    excluded = (logits == -np.inf) & ordinary[:, None]
    wrong = np.any(excluded & (results["softmax"] != 0), axis=1)
    excluded[np.arange(len(logits)), class_ids] = False
    return wrong | np.any(excluded & (results["gradient"] != 0), axis=1)


def _oracle_share(oracle, logits, class_ids, dtype, index):
    rng = np.random.default_rng(index)
    chosen = rng.choice(len(logits), size=min(_ROWS_IN_BALLS, len(logits)), replace=False)
    return oracle_error_share(oracle, logits, class_ids, dtype, chosen)


def _reproduction(logits, class_ids, shares, row):
    shown = [float(z).hex() for z in logits[row]] if logits.shape[1] <= _MOST_CLASSES_SHOWN else None
    return {
        "row": row,
        "class_id": int(class_ids[row]),
        "logits": shown,
        "shares": {name: float(row_shares[row]) for name, row_shares in shares.items()},
    }
