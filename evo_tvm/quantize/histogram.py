"""A histogram of a stream of values, in one pass and a fixed amount of memory."""

from __future__ import annotations

import math

import numpy as np

from evo_tvm.quantize.params import Array, Range

BINS = 8192
#: Bins are at least this wide, so that the reciprocal is a float32.
_NARROWEST = 2.0**-120


class Histogram:
    """Counts in bins [k * width, (k + 1) * width), `first` <= k < `first` + BINS; `width` is a power of two.

    When a value lies outside, the width doubles: two bins become one, and no count is ever split. At least half of the
    bins span the values seen so far and zero. Values that are exactly zero are counted apart.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.width = 0.0
        self.first = 0
        self.zeros = 0
        self.low = math.inf
        self.high = -math.inf

    def add(self, values: Array) -> None:
        """Count `values`: finite floats of any shape."""
        flat = values.reshape(-1)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        zeros = flat.size - int(np.count_nonzero(flat))
        self.zeros += zeros
        if zeros == flat.size:
            return
        self._cover(self.low, self.high)
        index = np.floor(flat * flat.dtype.type(1 / self.width)).astype(np.int64)
        self.counts += np.bincount(index - self.first, minlength=BINS)
        if zeros:
            self.counts[-self.first] -= zeros

    @property
    def total(self) -> int:
        """How many values were counted, zeros included."""
        return int(self.counts.sum()) + self.zeros

    @property
    def range(self) -> Range:
        """The least and the largest value, exactly."""
        return Range(min(self.low, 0.0), max(self.high, 0.0))

    @property
    def centres(self) -> Array:
        """The middle of each bin, float64."""
        return (np.arange(BINS) + (self.first + 0.5)) * self.width

    def coarse(self, bins: int) -> tuple[Array, int, float]:
        """The counts in at most `bins` bins from the first that is not empty, or zero, to the last; which of them
        starts at zero; and their width."""
        used = np.flatnonzero(self.counts) + self.first
        low, high, width = min(int(used.min(initial=0)), 0), max(int(used.max(initial=-1)) + 1, 0), self.width
        factor = 1
        while -(low // factor) + -(-high // factor) > bins:
            factor *= 2
        zero = -(low // factor)
        found = np.zeros(zero + -(-high // factor), np.int64)
        np.add.at(found, used // factor + zero, self.counts[used - self.first])
        return found, zero, width * factor

    def _cover(self, low: float, high: float) -> None:
        """Widen the bins until `low`, `high` and zero lie in them."""
        low, high = min(low, 0.0), max(high, 0.0)
        if not self.width:
            self.width = max(2.0 ** math.ceil(math.log2((high - low) / BINS)), _NARROWEST)
        width = self.width
        while math.floor(high / width) - math.floor(low / width) >= BINS:
            width *= 2
        first = math.floor(low / width)
        if width == self.width and self.first <= first and math.floor(high / width) < self.first + BINS:
            return
        old = np.flatnonzero(self.counts)
        wider = min(int(width / self.width), np.iinfo(np.int64).max)  # beyond, all fall into the bins beside zero
        index = (old + self.first) // wider - first
        moved = np.zeros(BINS, np.int64)
        np.add.at(moved, index, self.counts[old])
        self.counts, self.width, self.first = moved, width, first
