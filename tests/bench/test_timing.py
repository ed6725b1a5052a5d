"""Figures are taken in turn, keep their samples, and say when they are doubtful."""

from __future__ import annotations

import gc

import pytest

from evo_tvm.bench import timing
from evo_tvm.bench.timing import Timing, measure, speedup
from evo_tvm.errors import UsageError


class Clock:
    """A clock that only the callables move."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.order: list[str] = []

    def callable(self, name: str, times_ms: list[float]):  # type: ignore[no-untyped-def]
        calls = iter(times_ms * 1000)

        def call() -> None:
            self.order.append(name)
            self.now_ns += int(next(calls) * 1e6)

        return call

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SETTLE_S", 0.0)


def test_turns_alternate_and_the_order_rotates() -> None:
    clock = Clock()
    callables = {name: clock.callable(name, [1.0]) for name in "ab"}
    taken = measure(callables, rounds=3, turn_ms=2.0, min_calls=2, clock_ns=clock)
    # One call each to initialise, then turns of one uncounted and two counted calls.
    assert "".join(clock.order) == "ab" + "aaabbb" + "bbbaaa" + "aaabbb"
    assert taken["a"].rounds_ms == ((1.0, 1.0),) * 3


def test_a_turn_fills_its_time() -> None:
    clock = Clock()
    taken = measure({"a": clock.callable("a", [1.0])}, rounds=1, turn_ms=10.0, clock_ns=clock)
    assert len(taken["a"].samples_ms) == 10


def test_min_median_and_spread() -> None:
    taken = Timing("a", ((2.0, 3.0), (4.0, 2.5)))
    assert (taken.min_ms, taken.median_ms, taken.minima_ms, taken.spread) == (2.0, 2.75, (2.0, 2.5), 0.25)
    assert taken.as_json()["rounds_ms"] == [[2.0, 3.0], [4.0, 2.5]]


def test_a_wide_spread_warns_with_the_remedy() -> None:
    assert "more rounds" in Timing("a", ((2.0,), (2.5,))).warnings()[0]
    assert Timing("a", ((2.0,), (2.1,))).warnings() == ()


def test_the_speedup_is_the_ratio_of_minima_with_its_range() -> None:
    ratio = speedup(Timing("ours", ((2.0,), (4.0,))), Timing("theirs", ((3.0,), (5.0,))))
    assert (ratio.value, ratio.low, ratio.high) == (1.5, 1.25, 1.5)


def test_no_rounds_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one round"):
        measure({"a": lambda: None}, rounds=0)


def test_the_garbage_collector_is_off_meanwhile_and_on_again_after_a_failure() -> None:
    def fail() -> None:
        assert not gc.isenabled()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        measure({"a": fail})
    assert gc.isenabled()


def test_progress_counts_the_turns() -> None:
    steps: list[tuple[str, int, int]] = []
    measure(
        {"a": lambda: None, "b": lambda: None},
        rounds=2,
        turn_ms=0.0,
        progress=lambda text, done, total: steps.append((text, done, total)),
    )
    assert steps == [("a", 0, 4), ("b", 1, 4), ("b", 2, 4), ("a", 3, 4)]
