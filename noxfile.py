"""All checks: `nox --list` explains them, `nox` runs the default ones on this Python."""

import sys

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
CURRENT = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
# What each backend's tests install: the package with extras, and other requirements.
BACKENDS = {
    "numpy": [".[report]"],
    "jax": [".[report,jax]"],
    "array-api-strict": [".[report]", *nox.project.dependency_groups(PROJECT, "backend-array-api-strict")],
    "torch": [".[report]", "torch==2.13.0"],
    "dask": [".[report,dask]"],
}

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = True
nox.options.sessions = [f"tests-{CURRENT}", "lint", "types"]


def group(name):
    """Return the requirements of a dependency group."""
    return nox.project.dependency_groups(PROJECT, name)


@nox.session(python=PYTHONS)
@nox.parametrize("backend", list(BACKENDS))
def tests(session, backend):
    """Run the tests with one array library; arguments go to pytest."""
    session.install("-e", *BACKENDS[backend], *group("test"))
    session.run("pytest", "--backend", backend, *session.posargs)


@nox.session
def lint(session):
    """Check style and formatting."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session):
    """Check the types, strictly."""
    session.install("-e", ".[dask,report]", *group("types"))
    session.run("mypy")
