"""Times several callables fairly against each other: in turn, over rounds, every sample kept.

On a shared machine a time by itself says little, so what counts is the ratio of two minima that were taken in the same
run, and its spread over the rounds (the practice of pyperf: a figure comes with its samples and its provenance).
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from evo_tvm.errors import UsageError

#: Pause before each turn: the worker threads of the one before stop spinning and give up their cores.
SETTLE_S = 0.02
#: Above this spread of the round minima a figure comes with a warning.
SPREAD_LIMIT = 0.10


@dataclass(frozen=True)
class Timing:
    """Times of one callable in milliseconds: for each round, every call of its turn (never empty)."""

    name: str
    rounds_ms: tuple[tuple[float, ...], ...]

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """Every sample, in the order taken."""
        return tuple(sample for turn in self.rounds_ms for sample in turn)

    @property
    def minima_ms(self) -> tuple[float, ...]:
        """The fastest call of each round."""
        return tuple(min(turn) for turn in self.rounds_ms)

    @property
    def min_ms(self) -> float:
        return min(self.minima_ms)

    @property
    def median_ms(self) -> float:
        return statistics.median(self.samples_ms)

    @property
    def spread(self) -> float:
        """How far the round minima lie apart, as a share of the smallest."""
        return max(self.minima_ms) / self.min_ms - 1

    def warnings(self) -> tuple[str, ...]:
        """What makes the figure doubtful, and the remedy."""
        if self.spread <= SPREAD_LIMIT:
            return ()
        return (
            f"{self.name}: the minima of the rounds lie {self.spread:.0%} apart. "
            "Close other programs, or take more rounds.",
        )

    def as_json(self) -> dict[str, object]:
        """Plain data for `--json`."""
        return {
            "name": self.name,
            "min_ms": self.min_ms,
            "median_ms": self.median_ms,
            "spread": self.spread,
            "rounds_ms": [list(turn) for turn in self.rounds_ms],
        }


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one callable is as another: the ratio of the minima, and of each round's minima."""

    value: float
    by_round: tuple[float, ...]

    @property
    def low(self) -> float:
        return min(self.by_round)

    @property
    def high(self) -> float:
        return max(self.by_round)


def speedup(of: Timing, over: Timing) -> Ratio:
    """Above 1 where `of` is the faster; both must come from one call of `measure`."""
    by_round = tuple(slow / fast for fast, slow in zip(of.minima_ms, over.minima_ms, strict=True))
    return Ratio(over.min_ms / of.min_ms, by_round)


def measure(
    callables: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 5,
    turn_ms: float = 300.0,
    min_calls: int = 3,
    progress: Callable[[str, int, int], None] | None = None,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, Timing]:
    """Time each callable in turn, `rounds` times over; the order rotates, so that none always follows the same one.

    A turn is one call that is not counted (it brings the callable's data back into the caches and wakes its threads),
    then as many calls as fill `turn_ms` milliseconds, at least `min_calls`. The garbage collector is off meanwhile.
    `progress(name, done, total)` is called before each turn.
    """
    if rounds < 1:
        raise UsageError("at least one round is needed", where="rounds", got=rounds, expected="1 or more")
    names = list(callables)
    taken: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for call in callables.values():  # lazy initialisation happens here, outside every turn
            call()
        for turn in range(rounds):
            first = turn % len(names)
            for position, name in enumerate(names[first:] + names[:first]):
                if progress is not None:
                    progress(name, turn * len(names) + position, rounds * len(names))
                time.sleep(SETTLE_S)
                taken[name].append(_turn(callables[name], turn_ms, min_calls, clock_ns))
    finally:
        if collecting:
            gc.enable()
    return {name: Timing(name, tuple(taken[name])) for name in names}


def _turn(call: Callable[[], object], turn_ms: float, min_calls: int, clock_ns: Callable[[], int]) -> tuple[float, ...]:
    call()
    samples: list[float] = []
    started = clock_ns()
    while len(samples) < min_calls or (clock_ns() - started) / 1e6 < turn_ms:
        before = clock_ns()
        call()
        samples.append((clock_ns() - before) / 1e6)
    return tuple(samples)
