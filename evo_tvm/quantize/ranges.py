"""Which part of a histogram to keep: percentile, KL divergence, or mean squared error."""

from __future__ import annotations

import numpy as np

from evo_tvm.quantize.histogram import Histogram
from evo_tvm.quantize.params import LIMITS, Array, Range, Scheme

#: At most so many bins are searched for thresholds. More, such as TensorRT's 2048, cost the reference model 0.1 points
#: on its held-back images: the fewer values a bin has, the more its noise looks like detail that a wide range loses.
_ENTROPY_BINS = 1024
#: Stands for a probability of zero, whose logarithm is infinite.
_NEARLY_ZERO = 1e-10
#: Shares of the range that are tried for the least squared error.
_SHARES = np.linspace(1.0, 0.05, 96)


def percentile_range(histogram: Histogram, percentile: float) -> Range:
    """From the (100 - percentile)-th to the percentile-th percentile of the values, to the precision of a bin."""
    counts = histogram.counts.copy()
    counts[-histogram.first] += histogram.zeros
    cut = histogram.total * (1 - percentile / 100)
    low = histogram.first * histogram.width + _position(counts, cut) * histogram.width
    high = (histogram.first + len(counts) - _position(counts[::-1], cut)) * histogram.width
    return Range(max(low, histogram.low), min(high, histogram.high))


def _position(counts: Array, rank: float) -> float:
    """How many bins from the start lie below the value of this rank, linear within a bin."""
    below = np.cumsum(counts)
    index = int(np.searchsorted(below, rank, side="right"))
    if index == len(counts):
        return float(index)
    return index + float(rank - (below[index] - counts[index])) / float(counts[index])


def entropy_range(histogram: Histogram, scheme: Scheme) -> Range:
    """The range whose quantized distribution diverges least from the original.

    S. Migacz, "8-bit inference with TensorRT", GTC 2017. Values beyond a threshold count for the outermost bin of the
    reference, on their own side. Zeros are left out: they are exact whatever the scale.
    """
    levels = LIMITS[scheme.dtype][1] - LIMITS[scheme.dtype][0] + 1
    counts, zero, width = histogram.coarse(_ENTROPY_BINS)
    if scheme.symmetric and not (scheme.dtype == "uint8" and histogram.low >= 0):
        behind, ahead = zero, len(counts) - zero
        counts = np.pad(counts, (max(ahead - behind, 0), max(behind - ahead, 0)))
        zero = len(counts) // 2
    best, limit = np.inf, len(counts)
    below = np.concatenate([[0], np.cumsum(counts)])
    for reach in range(1, max(zero, len(counts) - zero) + 1):
        first, last = max(zero - reach, 0), min(zero + reach, len(counts))
        if last - first < levels:
            continue
        inside = counts[first:last]
        reference = inside.astype(np.float64)
        reference[0] += below[first]
        reference[-1] += below[-1] - below[last]
        divergence = _divergence(reference, _merged(inside, levels))
        if divergence < best:
            best, limit = divergence, reach
    return Range(max(histogram.range.low, -limit * width), min(histogram.range.high, limit * width))


def _merged(counts: Array, levels: int) -> Array:
    """`counts` after quantization: in each of `levels` runs of bins, the filled ones share what is there."""
    starts = np.arange(levels) * len(counts) // levels
    filled = np.add.reduceat(counts > 0, starts, dtype=np.int64)
    share = np.add.reduceat(counts, starts) / np.maximum(filled, 1)
    return np.where(counts > 0, np.repeat(share, np.diff(starts, append=len(counts))), 0.0)


def mse_range(histogram: Histogram, scheme: Scheme) -> Range:
    """The range with the least mean squared error after quantization.

    Both ends shrink together first, then each alone (Nagel et al., 2021, section 3.1).
    """
    full = histogram.range
    used = np.flatnonzero(histogram.counts)
    values, counts = histogram.centres[used], histogram.counts[used]

    def error(span: Range) -> float:
        return float((counts * (values - scheme.params(span).round_trip(values)) ** 2).sum())

    best = min((Range(full.low * share, full.high * share) for share in _SHARES), key=error)
    if not scheme.symmetric and full.low < 0 < full.high:
        for _ in range(2):
            best = min((Range(full.low * share, best.high) for share in _SHARES), key=error)
            best = min((Range(best.low, full.high * share) for share in _SHARES), key=error)
    return best


def _divergence(reference: Array, quantized: Array) -> float:
    """Kullback and Leibler's divergence of two histograms."""
    if not quantized.any():
        return float("inf")
    at = reference > 0
    p = reference[at] / reference.sum()
    q = np.maximum(quantized[at] / quantized.sum(), _NEARLY_ZERO)
    return float((p * np.log(p / q)).sum())
