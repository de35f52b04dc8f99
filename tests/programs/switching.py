"""Programs of others, whose imports are replaced by those of a drop-in."""

from functools import partial

import numpy as np

RNG = np.random.default_rng(0)
FEATURES = np.concatenate([RNG.normal(size=(60, 2)), RNG.normal(size=(60, 2)) * 0.3 + 4]).astype(np.float32)
CLASS_IDS = np.arange(120) // 60


def replacements(module, dropin, calls):
    """Yield the names of functions that a module has and the drop-in as well, and that of the drop-in, counted."""

    def call(name, *arguments, **options):
        calls.append(name)
        return getattr(dropin, name)(*arguments, **options)

    for name in dropin.__all__:
        if hasattr(module, name) and not isinstance(getattr(dropin, name), type):
            yield name, partial(call, name)


def assert_same(after, before, rtol):
    for value, expected in zip(after, before, strict=True):
        np.testing.assert_allclose(value, expected, rtol=rtol, atol=rtol)
