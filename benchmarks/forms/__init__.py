"""The same operations as each library's users write them, on NumPy arrays: a module for each library.

Each module has `NAME`; `FORMS`, functions of (logits, class_ids); and `arguments`, which turns NumPy's logits and
class ids into what the functions take, outside of what is measured.
"""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any


def name_of(library: str) -> str:
    """Return how the library calls itself."""
    return importlib.import_module(f"benchmarks.forms.{library}").NAME


def call_of(library: str, operation: str, logits: Any, class_ids: Any) -> Callable[[], Any]:
    """Return a function without arguments that runs the operation once."""
    module = importlib.import_module(f"benchmarks.forms.{library}")
    return partial(module.FORMS[operation], *module.arguments(logits, class_ids))


def unchanged(logits: Any, class_ids: Any) -> tuple[Any, Any]:
    """Return the arguments of libraries that work on NumPy arrays."""
    return logits, class_ids


def without_labels(function: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """Take class ids, and leave them."""
    return lambda logits, _: function(logits)
