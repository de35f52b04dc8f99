"""Several threads for a large array: the same bits, nothing left behind."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import stable_softmax
from stable_softmax import get_workers, set_workers
from stable_softmax._maths import kernels

pytestmark = [pytest.mark.only_backends("numpy"), pytest.mark.covering]


def results(logits, class_ids):
    loss, gradient = stable_softmax.value_and_grad_softmax_crossentropy_with_logits(logits, class_ids)
    return [loss, gradient, stable_softmax.log_softmax(logits), stable_softmax.logsumexp(logits)]


@pytest.mark.parametrize("shape", [(60_000, 10), (700, 1_000)])
def test_results_are_the_same_bits_for_any_number_of_workers(shape, dtype):
    rng = np.random.default_rng(11)
    logits = (rng.normal(size=shape) * 5).astype(dtype)
    class_ids = rng.integers(0, shape[1], size=shape[0])
    alone = results(logits, class_ids)
    for workers in (2, 3, 16):
        with set_workers(workers):
            for ours, expected in zip(results(logits, class_ids), alone, strict=True):
                assert ours.tobytes() == expected.tobytes()


def test_the_work_is_shared_and_no_thread_is_left(monkeypatch):
    seen, both_work = set(), threading.Barrier(2, timeout=60)
    kernel = kernels.SOFTMAX.whole

    def noted(*arguments, **options):
        if threading.current_thread() not in seen:
            seen.add(threading.current_thread())
            both_work.wait()  # else one thread may have done all before the other starts
        return kernel(*arguments, **options)

    monkeypatch.setattr(kernels.SOFTMAX, "whole", noted)
    before = threading.enumerate()
    with set_workers(2):
        stable_softmax.softmax(np.zeros((60_000, 100)))
    assert len(seen) == 2
    assert threading.current_thread() not in seen
    assert threading.enumerate() == before


def test_prompt_says_what_is_set_and_what_is_restored():
    with set_workers(3):
        assert repr(set_workers(4)) == "<workers set to 4: a context manager that restores 3>"
        assert get_workers() == 4
    assert get_workers() == 1


def test_what_a_worker_raises_arrives(monkeypatch):
    def failing(*_arguments, **_options):
        raise MemoryError("no more")

    monkeypatch.setattr(kernels.SOFTMAX, "whole", failing)
    before = threading.enumerate()
    with set_workers(2), pytest.raises(MemoryError, match="no more"):
        stable_softmax.softmax(np.zeros((60_000, 100)))
    assert threading.enumerate() == before


def test_the_number_holds_within_the_statement_and_the_thread():
    assert get_workers() == 1
    with set_workers(3):
        with set_workers(2):
            assert get_workers() == 2
        assert get_workers() == 3
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(get_workers).result() == 1
        with pytest.raises(RuntimeError), set_workers(4):
            raise RuntimeError
        assert get_workers() == 3
    assert get_workers() == 1


def test_negative_numbers_count_from_the_processors():
    with set_workers(-1):
        assert get_workers() == os.cpu_count()
    with set_workers(-os.cpu_count()):
        assert get_workers() == 1


@pytest.mark.parametrize(
    ("workers", "error"),
    [(0, ValueError), (-10_000, ValueError), (1.0, TypeError), ("2", TypeError), (True, TypeError)],
)
def test_bad_numbers_are_refused(workers, error):
    with pytest.raises(error, match="workers must be"), set_workers(workers):
        pass
    assert get_workers() == 1


def test_the_number_holds_from_the_call_on():
    before = set_workers(3)
    try:
        assert get_workers() == 3
    finally:
        with before:
            pass
    assert get_workers() == 1
