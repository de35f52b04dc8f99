"""All checks: `nox --list` explains them, `nox` runs the default ones on this Python."""

import sys

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
EXTRAS = PROJECT["project"]["optional-dependencies"]
CURRENT = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTEST = ["pytest", "--numprocesses=logical", "--quiet"]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
# What each backend's tests install: the package with extras, and other requirements.
BACKENDS = {
    "numpy": [".[report]"],
    "jax": [".[report,jax]", *nox.project.dependency_groups(PROJECT, "witnesses-jax")],
    "array-api-strict": [".[report]", *nox.project.dependency_groups(PROJECT, "backend-array-api-strict")],
    # The newest PyTorch that is the same on every platform, without the packages for GPUs where pip finds such a build.
    "torch": [".[report]", "torch==2.13.0"],
    "dask": [".[report,dask]"],
}

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = True
nox.options.sessions = [f"tests-{CURRENT}", "coverage", "doctests", "examples", "lint", "types"]
if sys.version_info < (3, 13):  # the oldest NumPy has no build for later ones
    nox.options.sessions.append("lowest")


def group(name):
    """Return the requirements of a dependency group."""
    return nox.project.dependency_groups(PROJECT, name)


@nox.session(python=PYTHONS)
@nox.parametrize("backend", list(BACKENDS))
def tests(session, backend):
    """Run the tests with one array library; arguments go to pytest."""
    session.install("-e", *BACKENDS[backend], *group("test"))
    # The coverage is that on one Python; to measure it takes time.
    measured = ["--cov", "--cov-report=", "--cov-fail-under=0"] if session.python == CURRENT else []
    data = {"COVERAGE_FILE": f".coverage.{backend}"}
    session.run(*PYTEST, *measured, "--backend", backend, *session.posargs, env=data)


@nox.session
def coverage(session):
    """Combine the coverage of the tests on all backends, and require every branch."""
    session.install(*group("coverage"))
    session.run("coverage", "combine", "--keep")
    session.run("coverage", "report")


@nox.session
def lowest(session):
    """Run the tests with the oldest supported versions of NumPy, array-api-compat and JAX."""
    declared = [*PROJECT["project"]["dependencies"], *EXTRAS["jax"], *EXTRAS["report"]]
    session.install("-e", ".", *(requirement.replace(">=", "==") for requirement in declared), *group("test"))
    # Optax and Keras, which are compared with there, need a newer JAX; what debuggers see does not depend on versions.
    ignored = ["--ignore=tests/test_jax_options.py", "--ignore=tests/test_jax_debuggers.py"]
    # Calls outside of jit compile the same code as those within: one of the two is enough here.
    compiled = ["-k", "jax-jit or not [jax"]
    for backend in ("numpy", "jax"):
        session.run(*PYTEST, "--backend", backend, *ignored, *compiled, *session.posargs)


@nox.session
def doctests(session):
    """Run the examples in the docstrings, the README and the documents."""
    session.install("-e", ".[report,jax]", *group("test"))
    # The one module that cannot be imported without PyTorch.
    skipped = "--ignore=src/stable_softmax/_libraries/_torch.py"
    session.run("pytest", "--doctest-modules", "--doctest-glob=*.md", skipped, "src", "README.md", "docs")


@nox.session
def examples(session):
    """Run the examples on real data."""
    session.install("torch==2.13.0")
    session.install("-e", ".[jax]", *group("examples"))
    for example in ("digits", "train_jax", "train_torch"):
        session.run("python", f"examples/{example}.py")


@nox.session
def accuracy(session):
    """Measure the errors of confident predictions, ours and the peers', as in the README."""
    session.install("torch==2.13.0")
    session.install("-e", ".[report,jax]", *group("peers"))
    session.run("python", "benchmarks/accuracy.py")


@nox.session
def soak(session):
    """Hold ten million random rows of each dtype against a wider oracle; arguments go to `python tests/soak`."""
    session.install("-e", ".[report,jax]")
    session.run("python", "tests/soak", *session.posargs)


@nox.session
def bench(session):
    """Time this library and its peers in one process; arguments go to `python -m benchmarks`."""
    session.install("torch==2.13.0")
    session.install("-e", ".[report,jax]", *group("peers"))
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def lint(session):
    """Check style and formatting."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session):
    """Check the types, strictly."""
    session.install("-e", ".[dask,jax,report]", *group("types"))
    session.run("mypy")
    session.run("pyright")
