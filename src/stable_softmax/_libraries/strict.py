"""array-api-strict, which computes with NumPy and accepts nothing beyond the standard."""

from contextlib import AbstractContextManager
from typing import Any

import array_api_strict as xp
import numpy as np

from stable_softmax._libraries.standard import Library


class Strict(Library):
    """array-api-strict, whose values can be read, and for which NumPy reports floating-point errors."""

    reads_values = True

    def in_silence(self) -> AbstractContextManager[Any]:
        return np.errstate(all="ignore")

    def convert(self, values: Any, dtype: Any) -> Any:
        with self.in_silence():
            return super().convert(values, dtype)


LIBRARY = Strict(xp)
