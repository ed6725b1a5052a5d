"""The histogram counts as numpy does, whatever the order in which values come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evo_tvm.quantize.histogram import BINS, Histogram

values = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False))


def edges(histogram: Histogram) -> np.ndarray:
    return (np.arange(BINS + 1) + histogram.first) * histogram.width


@given(st.lists(values, min_size=1, max_size=6))
def test_counts_are_numpys(batches: list[np.ndarray]) -> None:
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch)
    everything = np.concatenate(batches).astype(np.float64)
    assert histogram.total == everything.size and histogram.zeros == (everything == 0).sum()
    assert (histogram.low, histogram.high) == (everything.min(), everything.max())
    nonzero = everything[everything != 0]
    if nonzero.size:
        index = np.floor(nonzero / histogram.width).astype(np.int64) - histogram.first
        expected = np.zeros(BINS, np.int64)
        np.add.at(expected, index, 1)  # raises where a value lies outside
        np.testing.assert_array_equal(histogram.counts, expected)


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_batches_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    batches = [(rng.standard_normal(1000) * 10.0**power).astype(np.float32) for power in (-3, 2, 0, 1, -1)]
    forwards, backwards = Histogram(), Histogram()
    for batch in batches:
        forwards.add(batch)
    for batch in reversed(batches):
        backwards.add(batch)
    found = [
        dict(zip(edges(h)[:-1][h.counts > 0] / h.width, h.counts[h.counts > 0], strict=True))
        for h in (forwards, backwards)
    ]
    assert forwards.width == backwards.width and found[0] == found[1]


def test_at_least_half_of_the_bins_span_the_values() -> None:
    for scale in (1e-30, 1e-3, 1.0, 77.0, 1e30):
        histogram = Histogram()
        for part in (0.01, 0.3, 1.0):
            histogram.add(np.float32([0, part * scale, -part * scale / 3]))
        assert BINS / 2 - 2 <= (histogram.high - histogram.low) / histogram.width <= BINS


def test_memory_is_bounded() -> None:
    histogram = Histogram()
    for power in range(-20, 21):
        histogram.add(np.float32([10.0**power]))
    assert histogram.counts.shape == (BINS,) and histogram.counts.sum() == 41


@pytest.mark.parametrize("bins", [1, 7, 100, 2048, BINS])
def test_coarse_keeps_all_counts_at_their_place(bins: int) -> None:
    histogram = Histogram()
    data = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    histogram.add(data)
    counts, zero, width = histogram.coarse(max(bins, 2))
    assert len(counts) <= max(bins, 2) and counts.sum() == 5000
    index = np.floor(data.astype(np.float64) / width).astype(int) + zero
    np.testing.assert_array_equal(counts, np.bincount(index, minlength=len(counts)))


def test_nothing_and_zeros() -> None:
    histogram = Histogram()
    histogram.add(np.zeros((0, 3), np.float32))
    assert histogram.total == 0 and (histogram.range.low, histogram.range.high) == (0, 0)
    histogram.add(np.zeros(4, np.float32))
    assert histogram.total == 4 and histogram.zeros == 4 and histogram.width == 0
    histogram.add(np.float32([2, -0.0]))
    assert histogram.total == 6 and histogram.zeros == 5 and histogram.counts.sum() == 1
