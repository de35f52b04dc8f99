"""Says on the standard error what is measured now, if that is a terminal."""

from rich.console import Console

STATUS = Console(stderr=True).status("")
tell = STATUS.update
