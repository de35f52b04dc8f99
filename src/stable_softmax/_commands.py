"""The command line: the report, and the audit of a user's own logits."""

import typer

from stable_softmax.audit._command import audit
from stable_softmax.report._command import report

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")  # markdown joins the lines of a paragraph
app.callback(invoke_without_command=True)(report)
app.command()(audit)
