"""The command line: the report, the audit of a user's own logits, and the comparison of two models' logits."""

import typer

from stable_softmax.audit._command import audit
from stable_softmax.compare._command import compare
from stable_softmax.report._command import report

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")  # markdown joins the lines of a paragraph
app.callback(invoke_without_command=True)(report)
app.command()(audit)
app.command()(compare)
