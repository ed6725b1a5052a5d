from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, repeat

import pytest

from evo_tvm.tune import timer
from evo_tvm.tune.timer import Reference, _Timing, is_quick


class Library:
    """Fixed work that takes what is written here, then 100 for ever."""

    def __init__(self, times: Sequence[int] = ()) -> None:
        self._times = chain(times, repeat(100))

    def evo_fixed_work(self, pool: int, vector_bytes: int) -> int:
        return next(self._times)


def test_the_usual_time_is_that_of_a_machine_that_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timer, "_REFERENCE_S", 0.01)
    # Half of the time another shares the core, and twice the clock is higher than usual.
    reference = Reference()
    reference.begin(Library([160] * 50 + [100] * 48 + [89] * 2), 0)  # type: ignore[arg-type]
    library = Library([160, 89, 100])
    found = [reference.slowness(library, 0) for _ in range(3)]  # type: ignore[arg-type]
    assert found == [pytest.approx(1.6), pytest.approx(0.89), 1.0]
    assert [is_quick(slowness) for slowness in found] == [False, False, True]


def test_a_quick_moment_is_waited_for_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timer, "_REFERENCE_S", 0.01)
    reference = Reference()
    reference.begin(Library(), 0)  # type: ignore[arg-type]
    assert reference.wait(Library([170, 165, 101]), 0) == pytest.approx(1.01)  # type: ignore[arg-type]
    shared = Library([170] * 10_000_000)
    assert reference.wait(shared, 0) == pytest.approx(1.7)  # type: ignore[arg-type]


def test_a_neighbour_that_stays_for_long_is_not_taken_for_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timer, "_REFERENCE_S", 0.01)
    monkeypatch.setattr(timer, "_KEPT", 50)
    reference = Reference()
    reference.begin(Library(), 0)  # type: ignore[arg-type]
    shared = Library([160] * 10_000_000)
    for _ in range(3):
        assert reference.wait(shared, 0) == pytest.approx(1.6)  # type: ignore[arg-type]
        reference.begin(shared, 0)  # type: ignore[arg-type]


def test_a_kernel_is_done_when_its_shortest_samples_agree() -> None:
    timing = _Timing()
    for sample in (2.0, 1.5, 1.4):
        timing.add(sample, 1.0, 1.0, preempted=False)
        assert not timing.is_done(2, 9)
    assert timing.is_done(2, 3)
    timing.add(1.39, 1.0, 1.7, preempted=False)
    assert not timing.is_done(2, 9)
    timing.add(1.41, 1.0, 1.0, preempted=False)
    assert timing.is_done(2, 9) and not timing.is_done(5, 9)


def test_slow_kernels_are_given_up_earlier() -> None:
    timing = _Timing()
    for _ in range(4):
        timing.add(60.0, 1.0, 1.7, preempted=False)
    assert timing.is_done(4, 9) and not timing.is_done(5, 9)


def test_samples_of_quick_moments_count_alone() -> None:
    timing = _Timing()
    timing.add(3.0, 1.0, 1.7, preempted=False)
    timing.add(2.0, 1.6, 1.0, preempted=False)
    timing.add(1.0, 1.0, 1.0, preempted=True)
    alone = _Timing()
    alone.add(1.0, 1.0, 1.0, preempted=True)
    assert alone.samples == [1.0] and not is_quick(alone.slowness + 1e-9)
    assert (timing.samples, timing.slowness) == ([3.0, 2.0], 1.6)
    timing.add(4.0, 1.02, 0.99, preempted=False)
    assert (timing.samples, timing.slowness) == ([4.0], 1.0)
