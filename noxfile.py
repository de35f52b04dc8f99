"""All checks: `nox --list` explains them, `nox` runs the default ones on this Python."""

import os
import shutil
import sys
from pathlib import Path

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
EXTRAS = PROJECT["project"]["optional-dependencies"]
CURRENT = f"{sys.version_info.major}.{sys.version_info.minor}"
# Two sessions run side by side, each on half of the processors: with more processes, each of them takes longer.
PYTEST = ["pytest", f"--numprocesses={max(1, (os.cpu_count() or 1) // 2)}", "--quiet"]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
# The newest PyTorch that is the same on every platform, without the packages for GPUs where pip finds such a build.
PYTORCH = "torch==2.13.0"
# What each backend's tests install: the package with extras, and other requirements. Those that take long come first.
BACKENDS = {
    "jax": [".[report,jax]", *nox.project.dependency_groups(PROJECT, "witnesses-jax")],
    "torch": [".[report]", PYTORCH],
    "dask": [".[report,dask]"],
    "numpy": [".[report]"],
    "array-api-strict": [".[report]", *nox.project.dependency_groups(PROJECT, "backend-array-api-strict")],
}

nox.needs_version = ">=2026.10.20"  # which runs sessions side by side
nox.options.default_venv_backend = "uv|venv"  # pip takes five times as long for what most sessions install
nox.options.error_on_missing_interpreters = True
nox.options.sessions = [f"tests-{CURRENT}", "coverage", "lint", "types"]
# Most of them wait for a download, or one process, for some of their time.
nox.options.parallel = 2
nox.options.allow_parallel = True


def group(name):
    """Return the requirements of a dependency group."""
    return nox.project.dependency_groups(PROJECT, name)


def marked(expression):
    """Return the arguments that select tests by their markers, and leave out what takes long, as pytest does alone."""
    return ["-m", f"({expression}) and not thorough"]


def install(session, *requirements):
    """Install into the environment of a session, and set what its processes need to run beside others."""
    session.env["PYTHONDONTWRITEBYTECODE"] = None  # what is compiled is kept: the tests start Python many times
    session.env["OMP_WAIT_POLICY"] = "passive"  # threads that wait leave the processor to those that work
    if PYTORCH in requirements:  # from where pip takes it: other installers bring a build for GPUs, of several GB
        session.install("pip")
        session.run_install("python", "-m", "pip", "install", "--no-compile", "--quiet", PYTORCH)
    session.install(*requirements)


@nox.session(python=PYTHONS)
@nox.parametrize("backend", list(BACKENDS))
def tests(session, backend):
    """Run the tests with one array library; arguments go to pytest, such as `-m thorough` for those that take long."""
    install(session, "-e", *BACKENDS[backend], *group("test"))
    session.env["OMP_NUM_THREADS"] = "1"  # one for each of pytest's processes
    if session.posargs or session.python != CURRENT:
        session.run(*PYTEST, "--backend", backend, *session.posargs)
        return
    covering = ["--cov", "--cov-report=", "--cov-fail-under=0", *marked("covering")]
    session.run(*PYTEST, "--backend", backend, *covering, env={"COVERAGE_FILE": f".coverage.{backend}"})
    session.run(*PYTEST, "--backend", backend, *marked("not covering"))
    if backend == "jax":
        # The examples in the docstrings; modules about other libraries cannot be imported here.
        session.run("pytest", "--quiet", "--doctest-modules", "--doctest-ignore-import-errors", "src")


@nox.session
def quick(session):
    """Run the core facts with NumPy and JAX, in a minute."""
    install(session, "-e", *BACKENDS["jax"], *group("test"))
    for backend in ("numpy", "jax"):
        session.run(*PYTEST, "--backend", backend, *marked("quick"), *session.posargs)


@nox.session(requires=[f"tests-{CURRENT}(backend='{backend}')" for backend in BACKENDS])
def coverage(session):
    """Combine the coverage of the tests on all backends, and require every branch."""
    install(session, *group("coverage"))
    session.run("coverage", "combine", "--keep")
    session.run("coverage", "report")


@nox.session
def lowest(session):
    """Run the tests with the oldest supported NumPy, array-api-compat and JAX, which Python 3.13 is too new for."""
    extras = [requirement for extra in ("jax", "report", "files", "plot") for requirement in EXTRAS[extra]]
    declared = [*PROJECT["project"]["dependencies"], *extras]
    oldest = [requirement.replace(">=", "==") for requirement in declared]
    install(session, "-e", ".", *oldest, *group("test"), "absl-py")  # which jax.export of JAX 0.5 does not ask for
    session.run(*PYTEST, *marked("not unversioned"), *session.posargs)
    session.run(*PYTEST, "--backend", "jax", *marked("versioned and not meshes"), *session.posargs)
    install(session, "jax==0.7.2")
    session.run(*PYTEST, "--backend", "jax", *marked("meshes"), *session.posargs)


@nox.session(python=PYTHONS)
def newest(session):
    """Run the tests with NumPy and JAX as new as a Python allows: those of JAX that depend on its version."""
    install(session, "-e", *BACKENDS["jax"], *group("test"))
    session.run(*PYTEST, *marked("not unversioned"), *session.posargs)
    session.run(*PYTEST, "--backend", "jax", *marked("versioned"), *session.posargs)


@nox.session(allow_parallel=False)
def clusters(session):
    """Run on several processes: JAX, PyTorch, and a cluster of Dask's, with processes that are killed."""
    install(session, PYTORCH, "-e", ".[report,jax,dask]", *group("test"), *group("witnesses-jax"), *group("clusters"))
    session.run("pytest", "--quiet", "--backend", "dask", "tests/clusters/test_dask_cluster.py", *session.posargs)
    session.run("pytest", "--quiet", "--backend", "jax", "tests/clusters/test_jax_processes.py", *session.posargs)
    session.run("pytest", "--quiet", "--backend", "torch", "tests/clusters/test_torch_processes.py", *session.posargs)


@nox.session
@nox.parametrize("version", ["oldest", "newest"])
def pytorch(session, version):
    """Run the tests with the oldest PyTorch that is supported, or with the newest; each may take several GB."""
    (declared,) = EXTRAS["torch"]
    install(session, declared.replace(">=", "==") if version == "oldest" else declared)
    install(session, "-e", ".[report]", *group("test"))
    session.run(*PYTEST, "--backend", "torch", *session.posargs)


@nox.session
def strict(session):
    """Run the tests on array-api-strict with the oldest version that they take; `tests` has the newest."""
    oldest = [requirement.replace(">=", "==") for requirement in group("backend-array-api-strict")]
    install(session, "-e", ".[report]", *oldest, *group("test"))
    session.run(*PYTEST, "--backend", "array-api-strict", *session.posargs)


@nox.session
def foreign(session):
    """Run the core facts on array libraries that this one does not know, in their newest versions."""
    install(session, PYTORCH, "-e", ".[report]", *group("test"), *group("foreign"))
    session.run(*PYTEST, "tests/foreign", *session.posargs)


@nox.session
def programs(session):
    """Run programs of others, such as trainers and samplers, with the drop-ins in place of what they import."""
    install(session, PYTORCH, "-e", ".[jax]", *group("test"), *group("programs"))
    session.run(*PYTEST, "tests/programs", *session.posargs)


@nox.session
def docs(session):
    """Build the documentation into build/docs, run every block of code in it and in the README, and check all links."""
    install(session, PYTORCH, "-e", ".[report,jax,dask]", *group("test"), *group("docs"), *group("how-to"))
    strict = ("--fresh-env", "--nitpicky", "--fail-on-warning", "--keep-going", "--quiet")
    session.run("sphinx-build", *strict, "--builder", "html", "docs", "build/docs")
    session.run(*PYTEST, "--doctest-glob=*.md", "README.md", "docs")


@nox.session
def examples(session):
    """Run the examples on real data."""
    install(session, PYTORCH, "-e", ".[jax]", *group("examples"))
    for example in ("digits", "train_jax", "train_torch", "boosting", "character_model"):
        session.run("python", f"examples/{example}.py")


@nox.session
def accuracy(session):
    """Measure the errors of confident predictions, ours and the peers', as in the README."""
    install(session, PYTORCH, "-e", ".[report,jax]", *group("peers"))
    session.run("python", "benchmarks/accuracy.py")


@nox.session
def soak(session):
    """Hold ten million random rows of each dtype against a wider oracle; arguments go to `python tests/soak`."""
    install(session, "-e", ".[report,jax]")
    session.run("python", "tests/soak", *session.posargs)


@nox.session(allow_parallel=False)
def bench(session):
    """Time this library and its peers in one process; arguments go to `python -m benchmarks`."""
    install(session, PYTORCH, "-e", ".[report,jax]", *group("peers"))
    session.env["OMP_WAIT_POLICY"] = None  # as users have it
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(allow_parallel=False)
def collapse(session):
    """Train to where the usual loss is exactly 0; arguments go to `python -m benchmarks.collapse`, as `--out FILE`."""
    install(session, PYTORCH, "-e", ".[report,jax]", *group("peers"))
    session.run("python", "-m", "benchmarks.collapse", *session.posargs)


@nox.session
def lint(session):
    """Check style and formatting."""
    install(session, *group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session):
    """Check the types, strictly."""
    install(session, "-e", ".[dask,jax,plot,report]", *group("types"))
    session.run("mypy")
    session.run("pyright")


@nox.session
def build(session):
    """Build wheel and sdist, check them, and run some tests on the installed wheel, without the source."""
    folder = Path(session.create_tmp()) / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    install(session, *group("build"))
    session.run("python", "-m", "build", "--outdir", str(folder))
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(sdist))
    install(session, f"{wheel}[report]", *group("test"))
    shutil.unpack_archive(sdist, folder.parent)
    source = folder.parent / sdist.name.removesuffix(".tar.gz")
    shutil.rmtree(source / "src")
    with session.chdir(source):
        session.run(*PYTEST, *marked("quick or installed"), *session.posargs)
