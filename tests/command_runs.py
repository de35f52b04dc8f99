"""Runs of the commands on files, and what they say of files that they cannot use."""

from typer.testing import CliRunner

from stable_softmax._commands import app

UNUSABLE = 2


def run(command, *arguments, columns=80):
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(app, [command, *map(str, arguments)])


def refused(command, *arguments):
    """Return the one line that says why nothing can be said."""
    result = run(command, *arguments)
    assert result.exit_code == UNUSABLE, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"stable-softmax {command}: ")
    return line.removeprefix(f"stable-softmax {command}: ")
