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

    def evo_fixed_work(self, pool: int, wide: int) -> int:
        return next(self._times)


def test_the_usual_time_is_that_of_a_machine_that_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timer, "_REFERENCE_RUNS", 100)
    # Half of the time another shares the core, and twice the clock is higher than usual.
    library = Library([160] * 50 + [100] * 48 + [89] * 2 + [160, 89, 100])
    reference = Reference()
    reference.begin(library, 0)  # type: ignore[arg-type]
    found = [reference.slowness(library, 0) for _ in range(3)]  # type: ignore[arg-type]
    assert found == [pytest.approx(1.6), pytest.approx(0.89), 1.0]
    assert [is_quick(slowness) for slowness in found] == [False, False, True]


def test_a_quick_moment_is_waited_for_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timer, "_REFERENCE_RUNS", 10)
    reference, library = Reference(), Library([100] * 10 + [170, 165, 101])
    reference.begin(library, 0)  # type: ignore[arg-type]
    assert reference.wait(library, 0) == pytest.approx(1.01)  # type: ignore[arg-type]
    shared = Library([170] * 10_000_000)
    assert reference.wait(shared, 0) == pytest.approx(1.7)  # type: ignore[arg-type]


def test_samples_of_quick_moments_count_alone() -> None:
    timing = _Timing()
    timing.add(3.0, 1.0, 1.7, preempted=False)
    timing.add(2.0, 1.6, 1.0, preempted=False)
    timing.add(1.0, 1.0, 1.0, preempted=True)
    assert (timing.samples, timing.slowness) == ([3.0, 2.0], 1.6)
    timing.add(4.0, 1.02, 0.99, preempted=False)
    assert (timing.samples, timing.slowness) == ([4.0], 1.0)
