"""array-api-strict, which computes with NumPy and accepts nothing beyond the standard."""

from typing import Any

import array_api_strict as xp

from stable_softmax._libraries.numpy import call_in_silence
from stable_softmax._libraries.standard import Library


class Strict(Library):
    """array-api-strict, whose values can be read, and for which NumPy reports floating-point errors."""

    reads_values = True

    in_silence = staticmethod(call_in_silence)

    def convert(self, values: Any, dtype: Any) -> Any:
        return self.in_silence(super().convert, values, dtype)


LIBRARY = Strict(xp)
