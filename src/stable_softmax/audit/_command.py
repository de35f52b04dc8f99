"""The command line of the audit."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stable_softmax.audit._examples import Examples, paired
from stable_softmax.audit._findings import FailOn, failing
from stable_softmax.audit._pages import document, text
from stable_softmax.audit._plot import LABEL, fill
from stable_softmax.audit._tally import Tally
from stable_softmax.command_line.files import opened
from stable_softmax.command_line.output import one_line_errors, progress
from stable_softmax.command_line.results import Destinations, Result
from stable_softmax.reference.bounds import Dtype


def audit(
    logits: Annotated[str, typer.Argument(help="FILE or FILE::NAME: .npy, .npz, .safetensors or Zarr.")],
    labels: Annotated[str, typer.Argument(help="The class ids, in the shape of the logits without the axis.")],
    axis: Annotated[int, typer.Option(help="The axis that holds the classes.")] = -1,
    dtype: Annotated[
        Dtype | None,
        typer.Option(help="Round the logits to it, as if the model ran in it.", show_default="the file's"),
    ] = None,
    ignore_index: Annotated[int | None, typer.Option(help="The label of examples that do not count.")] = None,
    fail_on: Annotated[FailOn, typer.Option(help="Findings that lead to exit code 1.")] = FailOn.any,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw losses against the lead of the label, the worst included.")
    ] = None,
    html_: Annotated[Path | None, typer.Option("--html", help="Write the text and the drawing as one page.")] = None,
) -> None:
    """Tell what the usual form of the cross-entropy makes of a model's own logits, and of their labels.

    The files are read piece by piece, and may be larger than memory, unless they are compressed .npz. Exits with 0 if
    all is sound, with 1 if there are findings, and with 2 if an input cannot be used. `--fail-on inputs` exits with 1
    only for what is wrong with logits and labels themselves, and `--fail-on none` for nothing.
    """
    with one_line_errors("stable-softmax audit"):
        destinations = Destinations(json_, plot, html_)
        destinations.check()
        examples = paired(opened(logits), opened(labels), axis, dtype)
        tally, exact = _counted(examples, ignore_index)
        drawing = partial(fill, tally=tally)
        result = Result("stable-softmax audit", text(tally, exact), document(tally, exact), drawing, LABEL)
        destinations.take(result)
    raise typer.Exit(code=1 if failing(tally, fail_on) else 0)


def _counted(examples: Examples, ignore_index: int | None) -> tuple[Tally, list[float]]:
    """Count all examples and evaluate the worst, with a progress bar where somebody may watch."""
    tally = Tally(examples, ignore_index)
    with progress() as bar:
        task = bar.add_task("Examples", total=examples.logits.count)
        for block in examples.blocks():
            tally.add(block)
            bar.advance(task, len(block.labels))
        return tally, [loss.exact() for loss in bar.track(tally.worst, description="Exact losses")]
