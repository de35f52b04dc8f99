"""What all commands do with files, optional packages and errors."""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from types import ModuleType

import typer
from rich.console import Console
from rich.progress import Progress

WIDTH = 80
_INTERRUPTED = 130  # 128 and the number of the signal, as shells have it


class UnusableError(Exception):
    """An input that nothing can be said about; the message is one line that names it and the reason."""


@contextmanager
def one_line_errors(command: str) -> Iterator[None]:
    """Say in one line what stops a command, and end it."""
    _escape_what_cannot_be_written()
    try:
        yield
    except UnusableError as error:
        print(f"{command}: {error}", file=sys.stderr)
        raise typer.Exit(code=2) from error
    except BrokenPipeError:
        raise  # of `| head`, which is no error
    except OSError as error:
        print(f"{command}: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        raise typer.Exit(code=2) from error
    except KeyboardInterrupt as error:
        print(f"{command}: interrupted", file=sys.stderr)
        raise typer.Exit(code=_INTERRUPTED) from error


def _escape_what_cannot_be_written() -> None:
    """Write names of files as escapes where the terminal has no character for them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # notebooks have others, which take every character
            stream.reconfigure(errors="backslashreplace")


def required(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or say how to install it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        command = f'python -m pip install "stable-softmax[{extra}]"'
        raise UnusableError(f"{purpose} needs {module.partition('.')[0]}: {command}") from error


def check_destination(path: Path, suffixes: Iterable[str]) -> None:
    """Check what can be checked of a file before there is anything to write."""
    if path.suffix.lower() not in suffixes:
        raise UnusableError(f"{path}: the name must end in {', '.join(sorted(suffixes))}")
    if path.is_dir():
        raise UnusableError(f"{path}: is a folder")
    if not path.absolute().parent.is_dir():
        raise UnusableError(f"{path}: its folder does not exist")


def write(path: Path, content: bytes) -> None:
    """Write a file beside its place, and move it there: whoever looks sees the old file or the whole new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        raise UnusableError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def console() -> Console:
    """Return the console for results: no narrower than they are, so that no figure is cut off."""
    wide = Console(highlight=False)
    wide.width = max(wide.width, WIDTH)
    return wide


def progress() -> Progress:
    """Return a progress bar for where somebody may watch."""
    errors = Console(stderr=True)
    # Not rich's own question, which FORCE_COLOR answers, as in notebooks; rich 13 prints an empty line all the same.
    errors.quiet = not errors.file.isatty()
    return Progress(console=errors, transient=True, disable=errors.quiet)


def picture_suffixes() -> tuple[str, ...]:
    """Return the suffixes of the files that pictures can be written to, or say what to install."""
    required("matplotlib", "plot", "a plot")
    return (".pdf", ".png", ".svg")


def first_line(error: Exception) -> str:
    """Return the first line of a message, without addresses in memory, or the error's name if there is none."""
    return next(iter(re.sub(r" at 0x[0-9a-fA-F]+", "", str(error)).splitlines()), type(error).__name__)
