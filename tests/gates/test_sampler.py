"""The sampler: when it looks, what it keeps, how much memory that takes, and that threads do not disturb it."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pytest

from evo_tvm.errors import UsageError
from evo_tvm.gates.sampler import MEGABYTE, Reservoir, Sampler

Row = Mapping[str, np.ndarray]


def row(number: float) -> dict[str, np.ndarray]:
    return {"x": np.full(100, number, np.float32), "label": np.int64(number)}


def look(inputs: Row, label: int) -> dict[str, np.ndarray]:
    return {"x": inputs["input"].reshape(-1)[:100].copy(), "label": np.int64(label)}


def test_a_reservoir_is_a_uniform_sample_of_all_rows() -> None:
    kept = np.zeros(200)
    for seed in range(300):
        reservoir = Reservoir(row(0), 20 * 408, seed)
        assert reservoir.capacity == 20
        for number in range(200):
            reservoir.add(row(number))
        labels, x = reservoir.take(("label", "x"))
        np.testing.assert_array_equal(x[:, 0], labels)
        assert len(set(labels.tolist())) == 20
        kept[labels] += 1
    early, late = kept[:100].sum(), kept[100:].sum()
    assert abs(early - late) < 5 * np.sqrt(300 * 20 / 4)  # five standard deviations
    assert kept.min() > 0


@pytest.mark.parametrize("memory_mb", [0.5, 2.0])
def test_the_sampler_never_exceeds_its_memory(memory_mb: float) -> None:
    x = {"input": np.zeros((1, 3, 40, 40), np.float32)}
    tracemalloc.start()
    try:
        sampler = Sampler(look, x, memory_mb, every=1)
        most = 0
        before = tracemalloc.get_traced_memory()[0]
        for number in range(6000):
            sampler.offer(x, label=number)
            if number % 3:
                sampler.look()
            most = max(most, sampler.nbytes)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert most <= memory_mb * MEGABYTE
    assert peak <= 1.05 * memory_mb * MEGABYTE + 50_000  # one input and one row in hand, and Python's own objects
    assert sampler.reservoir is not None and sampler.reservoir.capacity == len(sampler.reservoir)


def test_it_looks_at_every_nth_input_and_where_a_gate_is_unsure() -> None:
    x = {"input": np.zeros((1, 100), np.float32)}
    sampler = Sampler(look, x, 1, every=4)
    assert [sampler.offer(x) for _ in range(9)] == [False, False, False, True] * 2 + [False]
    sampler = Sampler(look, x, 1, every=None, unsure=0.1)

    def log(score: float) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="a", scores=np.array([score], np.float32))]

    seen = [sampler.offer(x, log(score), {"a": 0.8}) for score in (0.75, 0.5, 0.89, 0.95, np.nan)]
    assert seen == [True, False, True, False, False]
    assert [sampler.look() for _ in range(3)] == [True, True, False]


def test_it_keeps_a_copy_of_the_input() -> None:
    x = np.ones((1, 100), np.float32)
    sampler = Sampler(look, {"input": x}, 1, every=1)
    sampler.offer({"input": x}, label=3)
    x[...] = 7
    sampler.look()
    assert sampler.reservoir is not None
    assert sampler.reservoir.take(("x",))[0].max() == 1


def test_a_thread_looks_when_the_model_is_idle() -> None:
    x = {"input": np.zeros((1, 100), np.float32)}
    sampler = Sampler(look, x, 1, every=1, idle_s=0.15)
    done = threading.Event()
    thread = threading.Thread(target=sampler.run, args=(done.is_set, 0.001))
    sampler.offer(x)
    thread.start()
    for _ in range(10):
        sampler.offer(x)
        assert sampler.reservoir is None
        done.wait(0.01)
    done.wait(0.6)
    done.set()
    thread.join()
    assert sampler.reservoir is not None and len(sampler.reservoir) == 11


def test_threads_do_not_disturb_each_other() -> None:
    x = {"input": np.zeros((1, 100), np.float32)}
    sampler = Sampler(look, x, 4, every=1)

    def work(begin: int) -> None:
        for number in range(begin, begin + 400):
            sampler.offer({"input": np.full((1, 100), number, np.float32)}, label=number)
            sampler.look()
            if sampler.reservoir is not None:
                values, labels = sampler.reservoir.take(("x", "label"))
                np.testing.assert_array_equal(values[:, 99], labels)

    threads = [threading.Thread(target=work, args=(1000 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while sampler.look():
        pass
    assert sampler.reservoir is not None
    assert len(set(sampler.reservoir.take(("label",))[0].tolist())) == 1600


def test_a_memory_that_holds_nothing_is_refused() -> None:
    x = {"input": np.zeros((1, 3, 224, 224), np.float32)}
    with pytest.raises(UsageError, match=r"memory_mb: the memory is too small for one input \(expected at least 2.41"):
        Sampler(look, x, 1)
    with pytest.raises(UsageError, match=r"memory: the memory is too small for one sample"):
        Reservoir(row(0), 10)
    with pytest.raises(UsageError, match="every: every how many inputs to look"):
        Sampler(look, x, 64, every=0)
