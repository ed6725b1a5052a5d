"""Observers: each sees the values of one tensor, run after run, and says which range to quantize."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from evo_tvm.errors import UsageError
from evo_tvm.quantize.histogram import Histogram
from evo_tvm.quantize.params import Array, Range, Scheme
from evo_tvm.quantize.ranges import entropy_range, mse_range, percentile_range

#: How much of a moving average stays with each run.
MOMENTUM = 0.99


class Observer(Protocol):
    """What every observer does."""

    def add(self, values: Array) -> None:
        """See the values of one run: finite floats of any shape."""
        ...

    def range(self) -> Range:
        """The range to quantize, given all that was seen."""
        ...


class MinMax:
    """The least and the largest value."""

    def __init__(self) -> None:
        self._range = Range(0.0, 0.0)

    def add(self, values: Array) -> None:
        """See one run."""
        if values.size:
            self._range |= Range(float(values.min()), float(values.max()))

    def range(self) -> Range:
        """The least and the largest value."""
        return self._range


class MovingAverage:
    """Exponential moving averages of the least and the largest value of a run (Jacob et al., CVPR 2018)."""

    def __init__(self, momentum: float = MOMENTUM) -> None:
        self._momentum = momentum
        self._ends: tuple[float, float] | None = None

    def add(self, values: Array) -> None:
        """See one run."""
        if not values.size:
            return
        ends = float(values.min()), float(values.max())
        if self._ends is not None:
            m = self._momentum
            ends = m * self._ends[0] + (1 - m) * ends[0], m * self._ends[1] + (1 - m) * ends[1]
        self._ends = ends

    def range(self) -> Range:
        """The two averages."""
        return Range(*(self._ends or (0.0, 0.0)))


class FromHistogram:
    """Keeps a histogram, and lets `choose` find the range in it at the end."""

    def __init__(self, choose: Callable[[Histogram], Range]) -> None:
        self._choose = choose
        self._histogram = Histogram()

    def add(self, values: Array) -> None:
        """See one run."""
        self._histogram.add(values)

    def range(self) -> Range:
        """What `choose` finds; zero to zero where nothing but zeros was seen."""
        return self._choose(self._histogram) if self._histogram.width else Range(0.0, 0.0)


#: What each name stands for, given the scheme and the percentile.
OBSERVERS: dict[str, Callable[[Scheme, float], Observer]] = {
    "kl": lambda scheme, _: FromHistogram(lambda histogram: entropy_range(histogram, scheme)),
    "minmax": lambda _, __: MinMax(),
    "moving-average": lambda _, __: MovingAverage(),
    "mse": lambda scheme, _: FromHistogram(lambda histogram: mse_range(histogram, scheme)),
    "percentile": lambda _, percentile: FromHistogram(lambda histogram: percentile_range(histogram, percentile)),
}


def make_observer(name: str, scheme: Scheme, percentile: float) -> Observer:
    """A new observer. percentile: of "percentile" alone, above 50 and at most 100.

    Raises UsageError: no observer of that name, or a percentile that cannot be.
    """
    if name not in OBSERVERS:
        raise UsageError(f"there is no observer {name!r}", hint=f"Choose one of {', '.join(OBSERVERS)}.")
    if not 50 < percentile <= 100:
        raise UsageError("the percentile is out of range", expected="above 50, at most 100", got=percentile)
    return OBSERVERS[name](scheme, percentile)
