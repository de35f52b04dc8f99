"""The command that compares the textbook's forms and ours on the user's machine."""

import json
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import stable_softmax
from stable_softmax import __main__, textbook
from stable_softmax.report import _command, _measurement

pytestmark = pytest.mark.only_backends("numpy", "jax", "torch")


@pytest.fixture
def run(library):
    """Run the command for this backend and return its result, with columns enough for one line per sentence."""

    def run(*arguments):
        options = [] if "--backend" in arguments else ["--backend", library.name]
        return CliRunner(env={"COLUMNS": "500"}).invoke(_command.app, [*options, *arguments])

    return run


@pytest.mark.thorough_on("jax", "torch")
def test_every_dtype_has_a_table_and_the_backend_a_sentence(run, library):
    result = run()
    assert result.exit_code == 0, result.output
    titles = [line for line in result.output.splitlines() if line.rstrip().endswith(library.dtypes)]
    assert len(titles) == len(library.dtypes)
    assert "this library kept its accuracy contract in all" in result.output.splitlines()[-1]
    assert "\x1b" not in result.output


def is_worthless(cell):
    """Not one digit is right. XLA may leave noise of the last place where the others have 0."""
    return cell["failure"] is not None or cell["relative_error"] > 0.5


def test_json_holds_every_cell(run, library):
    result = run("--json", "--dtype", "float32", "--dtype", "float64")
    document = json.loads(result.stdout)
    assert list(document["backends"]) == [library.name]
    cells = {(c["dtype"], c["operation"], c["case"], c["form"]): c for c in document["cells"]}
    assert len(cells) == 2 * 3 * 10 * 3
    for dtype in ("float32", "float64"):
        for operation in ("crossentropy", "gradient"):
            at = (dtype, operation, "label leads by 40")
            assert cells[*at, "shifted"]["failure"] == "collapsed to 0"
            assert is_worthless(cells[*at, "unstable"])
            assert cells[*at, "stable-softmax"]["relative_error"] < 64 * np.finfo(dtype).eps
        assert cells[dtype, "softmax", "notebook, -1 to 5e5", "unstable"]["failure"] == "nan"
        assert cells[dtype, "crossentropy", "notebook, -1 to 1e5", "unstable"]["failure"] == "inf"
    ours = [c for c in document["cells"] if c["form"] == "stable-softmax"]
    assert all(c["kept"] and 0 <= c["share_of_bound"] <= 1 for c in ours)


@pytest.mark.parametrize("form", [textbook.shifted_crossentropy, textbook.unstable_crossentropy])
def test_broken_contract_is_named_and_exits_with_1(run, library, monkeypatch, form):
    crossentropy = (*_measurement.OPERATIONS["crossentropy"][:2], form)
    monkeypatch.setitem(_measurement.OPERATIONS, "crossentropy", crossentropy)
    result = run("--dtype", "float32")
    assert result.exit_code == 1
    sentence = result.output.splitlines()[-1]
    assert sentence.startswith(_measurement.title(library.name))
    assert "broke its accuracy contract: crossentropy of " in sentence
    assert "crossentropy of label leads by 80 in float32" in sentence


def test_backend_that_is_not_installed(run, monkeypatch):
    monkeypatch.setattr(_command, "installed_backends", list)
    result = run("--backend", "torch")
    assert result.exit_code == 2
    assert 'torch is not installed: python -m pip install "stable-softmax[torch]"' in result.output


@pytest.mark.only_backends("numpy")
def test_dtype_that_the_backend_lacks(run):
    result = run("--dtype", "bfloat16")
    assert result.exit_code == 2
    assert "numpy has no bfloat16" in result.output


def test_version(run):
    assert run("--version").output == f"stable-softmax {stable_softmax.__version__}\n"


def test_missing_extra_is_one_line_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, _command.__name__)
    with pytest.raises(
        SystemExit, match=r"^The report needs typer: python -m pip install \"stable-softmax\[report\]\"$"
    ):
        __main__.main()


def test_module_runs_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["stable-softmax", "--help"])
    with pytest.raises(SystemExit, match=r"^0$"):
        __main__.main()
    assert "accuracy contract" in capsys.readouterr().out
