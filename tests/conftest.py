"""One run of the tests is for one backend: `pytest --backend jax`. A backend that cannot be imported fails the run."""

import pytest
from backends import BACKENDS, Backend


def pytest_addoption(parser):
    parser.addoption("--backend", choices=BACKENDS, default="numpy", help="the array library to test with")


def pytest_configure(config):
    backend = config.stash[BACKEND] = BACKENDS[config.getoption("--backend")]()
    if hasattr(config, "cache"):  # which `-p no:cacheprovider` turns off
        backend.keep_compiled(config.cache.mkdir(f"compiled-{backend.name}"))


BACKEND = pytest.StashKey[Backend]()


def pytest_report_header(config):
    return f"backend: {config.stash[BACKEND].version}"


def pytest_generate_tests(metafunc):
    """Run each test that asks for a `backend` in every mode of it, and each that asks for a `dtype` in every dtype."""
    backend = metafunc.config.stash[BACKEND]
    asked = {"backend", "dtype"} & set(metafunc.fixturenames)
    if asked == {"dtype"}:
        metafunc.parametrize("dtype", backend.dtypes)
    elif asked == {"backend"}:
        modes = [parameters(mode, thorough=not dtypes) for mode, dtypes, _ in backend.runs()]
        metafunc.parametrize("backend", modes, ids=str)
    elif asked:
        pairs = [
            parameters(mode, dtype, thorough=dtype not in dtypes)
            for mode, dtypes, thorough_dtypes in backend.runs()
            for dtype in (*dtypes, *thorough_dtypes)
        ]
        metafunc.parametrize(("backend", "dtype"), pairs, ids=str)


def parameters(*values, thorough):
    return pytest.param(*values, marks=[pytest.mark.thorough] if thorough else [])


def pytest_ignore_collect(collection_path, config):
    """Leave out the files that import another backend, and the folders that have sessions of their own."""
    name = collection_path.name
    if name in ("clusters", "foreign", "programs") and not any(name in argument for argument in config.args):
        return True
    words = collection_path.name.removesuffix(".py").split("_")
    others = {"jax", "torch"} - {config.getoption("--backend")}
    return True if others & set(words) else None


@pytest.hookimpl(tryfirst=True)  # before markers select
def pytest_collection_modifyitems(config, items):
    """Leave out, rather than skip, the tests that are about other backends; give others the markers for this one."""
    name = config.getoption("--backend")
    chosen, others = [], []
    for item in items:
        for kind in ("thorough", "covering", "quick", "versioned"):
            if any(name in marker.args for marker in item.iter_markers(f"{kind}_on")):
                item.add_marker(kind)
        marker = item.get_closest_marker("only_backends")
        (chosen if marker is None or name in marker.args else others).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = chosen


@pytest.fixture
def library(request):
    """The backend itself, in no particular mode."""
    return request.config.stash[BACKEND]
