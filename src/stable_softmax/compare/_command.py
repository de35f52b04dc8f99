"""The command line of the comparison."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stable_softmax.command_line.files import opened
from stable_softmax.command_line.output import one_line_errors, progress
from stable_softmax.command_line.results import Destinations, Result
from stable_softmax.compare._check import Checked, checked
from stable_softmax.compare._findings import findings
from stable_softmax.compare._pages import document, text
from stable_softmax.compare._pair import Pair, paired
from stable_softmax.compare._plot import LABEL, fill
from stable_softmax.compare._tally import Tally
from stable_softmax.reference.bounds import Dtype


def compare(
    logits: Annotated[str, typer.Argument(help="FILE or FILE::NAME: .npy, .npz, .safetensors or Zarr.")],
    reference_logits: Annotated[str, typer.Argument(help="Those of the original model, in the same shape.")],
    axis: Annotated[int, typer.Option(help="The axis that holds the classes.")] = -1,
    dtype: Annotated[
        Dtype | None,
        typer.Option(help="Round LOGITS to it, and not REFERENCE_LOGITS.", show_default="the file's"),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Mask of the examples that count: booleans, or 0 and 1.", metavar="FILE")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the KL divergences by their rank.")] = None,
    html_: Annotated[Path | None, typer.Option("--html", help="Write the text and the drawing as one page.")] = None,
) -> None:
    """Tell how far apart the predictions of two models are, such as a quantized one and its original.

    The files are read piece by piece, and may be larger than memory, unless they are compressed .npz; what is kept are
    24 bytes for each example. Exits with 0 if all is sound, with 1 if some examples have no finite divergence, or if
    logits are missing or look like probabilities, and with 2 if an input cannot be used.
    """
    with one_line_errors("stable-softmax compare"):
        destinations = Destinations(json_, plot, html_)
        destinations.check()
        mask = opened(where) if where is not None else None
        tally, check = _counted(paired(opened(logits), opened(reference_logits), mask, axis, dtype))
        drawing = partial(fill, tally=tally)
        result = Result("stable-softmax compare", text(tally, check), document(tally, check), drawing, LABEL)
        destinations.take(result)
    raise typer.Exit(code=1 if findings(tally) else 0)


def _counted(pair: Pair) -> tuple[Tally, Checked]:
    """Count all examples and check some, with a progress bar where somebody may watch."""
    tally = Tally(pair)
    with progress() as bar:
        task = bar.add_task("Examples", total=pair.logits.count)
        for block in pair.blocks():
            tally.add(block)
            bar.advance(task, len(block.positions))
        return tally, checked(tally, partial(bar.track, description="Exact divergences"))
