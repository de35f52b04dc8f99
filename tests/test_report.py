"""The command that compares the textbook's forms and ours on the user's machine."""

import importlib.util
import json
import re
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import stable_softmax
from stable_softmax import __main__, _commands, textbook
from stable_softmax.command_line import output
from stable_softmax.report import _command, _forms, _measurement, _plot

pytestmark = [pytest.mark.only_backends("numpy", "jax", "torch"), pytest.mark.covering, pytest.mark.installed]


@pytest.fixture
def run(library):
    """Run the command for this backend and return its result, with columns enough for one line per sentence."""

    def run(*arguments, columns=500):
        options = [] if "--backend" in arguments else ["--backend", library.name]
        return CliRunner(env={"COLUMNS": str(columns)}).invoke(_commands.app, [*options, *arguments])

    return run


@pytest.mark.thorough_on("jax", "torch")
def test_every_dtype_has_a_table_behind_the_summary(run, library):
    result = run("--all")
    assert result.exit_code == 0, result.output
    titles = [line for line in result.output.splitlines() if line.rstrip().endswith(library.dtypes)]
    assert len(titles) == len(library.dtypes)
    *_, last = result.output.splitlines()
    assert re.search(r"was within its accuracy bound in all \d+ results\. No digit right: ", last)
    assert "\x1b" not in result.output


def test_the_summary_fits_a_terminal_and_names_what_goes_wrong(run, library):
    result = run(columns=80)
    lines = result.output.splitlines()
    assert result.exit_code == 0
    assert max(map(len, lines)) <= 80
    forms = list(_forms.forms_of(library.name))
    assert len(lines) + 2 * len(forms) <= 31  # for three backends
    start = next(i for i, line in enumerate(lines) if line.startswith("Largest relative error"))
    rows = {form: next(line.split(form)[1] for line in lines[start:] if f"{form} " in line) for form in forms}
    for form, row in rows.items():
        assert ("no digit" in row) == (form != _forms.OURS)
    assert rows["unstable"].split()[1:3] == ["nan", "nan"]
    assert "was within its accuracy bound in all 30 results. No digit right: unstable 18 of 30" in " ".join(
        line.strip() for line in lines
    )


@pytest.mark.only_backends("numpy")
def test_ordinary_predictions_come_first_and_are_wrong_by_the_usual_formulas(run):
    first = run(columns=80).output.split("Largest relative error")[0]
    assert max(map(len, first.splitlines())) <= 80
    rows = [line.rsplit(maxsplit=3)[1:] for line in first.splitlines() if line.startswith(("loss", "slope", "KL"))]
    usual, ours, exact = np.asarray(rows, float).T
    np.testing.assert_allclose(ours, exact, rtol=2e-3)
    assert np.all(np.abs(usual / exact - 1) >= 1)
    assert usual[1] * exact[1] < 0


@pytest.mark.only_backends("numpy")
def test_peers_that_are_not_installed_are_left_out(monkeypatch):
    installed = importlib.util.find_spec
    monkeypatch.setattr(_forms, "find_spec", lambda name: None if name in ("scipy", "optax") else installed(name))
    assert list(_forms.forms_of("numpy")) == ["unstable", "shifted", "stable-softmax"]


@pytest.mark.only_backends("jax")
def test_jax_without_optax_has_a_peer_of_its_own(monkeypatch, run):
    installed = importlib.util.find_spec
    monkeypatch.setattr(_forms, "find_spec", lambda name: None if name == "optax" else installed(name))
    output = run("--case", "label leads by 20").output
    assert "jax.nn" in output
    assert "Optax" not in output


@pytest.mark.thorough_on("jax", "torch")
def test_one_case_in_full(run):
    output = run("--case", "label leads by 40", "--dtype", "float32").output
    assert "50 examples: label 0, logits 41.3" in output
    exact, *forms = (line.split()[-3:] for line in output.splitlines() if len(line.split()) > 3 and "e-1" in line)
    loss, gradient = map(float, exact[1:])
    assert 1e-18 < loss < 1e-15
    assert gradient == -loss
    np.testing.assert_allclose([float(x) for x in forms[-1][1:]], [loss, -loss], rtol=1e-5)
    assert "(70,000 in all)" in run("--case", "70,000 classes").output


@pytest.mark.only_backends("numpy")
def test_a_case_that_a_dtype_is_too_narrow_for_says_so(run):
    said = {dtype: run("--case", "label leads by 20", "--dtype", dtype).output for dtype in ("float16", "float32")}
    assert "float16 has no number between 0 and 6e-08" in said["float16"]
    assert "has no number" not in said["float32"]


@pytest.mark.thorough_on("jax", "torch")
def test_a_case_that_not_every_dtype_has_the_range_for(run):
    output = run("--case", "offset of 1e6").output
    assert "In float64" in output
    assert "In float16" not in output


@pytest.mark.only_backends("numpy")
@pytest.mark.parametrize("arguments", ["--json --all", "--case x --plot x.png", "--json audit logits labels"])
def test_options_that_exclude_each_other(run, arguments):
    result = run(*arguments.split())
    assert result.exit_code == 2
    assert "choose one of --case, --plot, --json, --all, and none with another command" in result.output


@pytest.mark.only_backends("numpy")
def test_the_picture_has_dtypes_of_its_own(run):
    result = run("--plot", "x.png", "--dtype", "float16")
    assert result.exit_code == 2
    assert "goes without --plot, which draws float32 and float64" in result.output


@pytest.mark.only_backends("numpy")
def test_a_narrow_terminal_cuts_no_figure(run):
    assert run(columns=30).output == run(columns=80).output


@pytest.mark.only_backends("numpy")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.gif", "must end in .pdf, .png, .svg"),
        ("folder.png", "is a folder"),
        ("x" * 300 + ".png", "File name too long"),
    ],
)
def test_a_picture_that_cannot_be_written(run, tmp_path, name, message):
    (tmp_path / "folder.png").mkdir()
    result = run("--plot", str(tmp_path / name))
    assert result.exit_code == 2
    assert message in result.output


def test_a_case_that_there_is_not(run):
    result = run("--case", "none")
    assert result.exit_code == 2
    assert "'label leads by 80'" in result.output


@pytest.mark.thorough_on("jax", "torch")
def test_a_picture(run, tmp_path):
    result = run("--plot", str(tmp_path / "errors.svg"))
    assert result.exit_code == 0
    assert result.output.startswith(f"Wrote {tmp_path / 'errors.svg'}: ")
    text = (tmp_path / "errors.svg").read_text()
    assert all(f"<!-- {name} -->" in text for name in ("our bound", "stable-softmax", "no digit is right"))


@pytest.mark.only_backends("torch")
def test_a_picture_has_what_several_libraries_share_once():
    drawing = _plot.drawn(["numpy", "torch"], "svg")
    assert [drawing.count(f"<!-- {name} -->".encode()) for name in ("unstable", "stable-softmax", "SciPy")] == [1, 1, 1]


@pytest.mark.only_backends("numpy")
def test_a_dtype_without_the_range_for_a_case_has_a_dash(run):
    result = run("--dtype", "float16")
    assert result.exit_code == 0
    row = next(line for line in result.output.splitlines() if line.split()[:1] == ["stable-softmax"])
    assert row.split()[-4] == "-"  # the offset


@pytest.mark.only_backends("numpy")
def test_a_picture_needs_matplotlib(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("--plot", str(tmp_path / "errors.png"))
    assert result.exit_code == 2
    assert 'python -m pip install "stable-softmax[plot]"' in result.output


def is_worthless(cell):
    """Not one digit is right. XLA may leave noise of the last place where the others have 0."""
    return cell["failure"] is not None or cell["relative_error"] > 0.5


@pytest.mark.thorough_on("jax", "torch")
def test_json_holds_every_cell(run, library):
    result = run("--json", "--dtype", "float32", "--dtype", "float64")
    document = json.loads(result.stdout)
    assert list(document["backends"]) == [library.name]
    cells = {(c["dtype"], c["operation"], c["case"], c["form"]): c for c in document["cells"]}
    assert len(cells) == 2 * 3 * 10 * len(_forms.forms_of(library.name))
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


@pytest.mark.thorough_on("jax")
@pytest.mark.parametrize("form", [textbook.shifted_crossentropy, textbook.unstable_crossentropy])
def test_broken_contract_is_named_and_exits_with_1(run, library, monkeypatch, form):
    monkeypatch.setattr(_forms, "_OURS", _forms._OURS._replace(crossentropy=form))
    result = run("--dtype", "float32")
    assert result.exit_code == 1
    assert "This library broke its accuracy bound: crossentropy of " in result.output
    assert f"crossentropy of label leads by 80, {_measurement.title(library.name)}, float32" in result.output


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


def test_missing_extra_is_one_line_that_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, _commands.__name__)
    with pytest.raises(SystemExit, match=r"^2$"):
        __main__.main()
    assert capsys.readouterr().err == 'The command needs typer: python -m pip install "stable-softmax[report]"\n'


def test_missing_module_of_our_own_is_no_missing_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_softmax._commands", None)
    with pytest.raises(ModuleNotFoundError, match="_commands"):
        __main__.main()


def test_reader_who_has_seen_enough_is_no_error():
    with pytest.raises(BrokenPipeError), output.one_line_errors("stable-softmax"):
        raise BrokenPipeError


def test_module_runs_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["stable-softmax", "--help"])
    with pytest.raises(SystemExit, match=r"^0$"):
        __main__.main()
    assert "accuracy bound" in capsys.readouterr().out
