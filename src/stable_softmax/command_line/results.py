"""What a command has found, in each form that it may be asked for."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import RenderableType

from stable_softmax.command_line.output import (
    WIDTH,
    UnusableError,
    check_destination,
    console,
    picture_suffixes,
    write,
)
from stable_softmax.command_line.pages import html
from stable_softmax.command_line.pictures import Drawing, drawn, inline_svg


class Result(NamedTuple):
    """What a command has found."""

    #: The title of a page.
    title: str
    text: RenderableType
    document: dict[str, Any]
    drawing: Drawing
    #: What the drawing shows, for those who cannot see it.
    label: str


class Destinations(NamedTuple):
    """Where a result goes."""

    as_json: bool
    plot: Path | None
    page: Path | None

    def check(self) -> None:
        """Check what can be checked before there is a result."""
        if self.plot:
            check_destination(self.plot, picture_suffixes())
        if self.page:
            check_destination(self.page, {".html", ".htm"})

    def take(self, result: Result) -> None:
        """Print a result as text or as JSON, and write the files that are asked for."""
        if self.as_json:
            # With null for what is no finite number.
            print(json.dumps(result.document, indent=2, allow_nan=False))
        else:
            console().print(result.text, width=WIDTH)
        if self.plot:
            write(self.plot, drawn(result.drawing, self.plot.suffix[1:].lower()))
        if self.page:
            write(self.page, html(result.title, result.text, _picture(result)).encode(errors="backslashreplace"))


def _picture(result: Result) -> str:
    """Return the drawing for a page, or nothing where matplotlib is missing."""
    try:
        picture_suffixes()
    except UnusableError:
        return ""
    return inline_svg(result.drawing, result.label)
