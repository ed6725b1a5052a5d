"""Every observer against the plain definition of what it finds, on all values at once."""

from __future__ import annotations

import numpy as np
import pytest

from evo_tvm.errors import UsageError
from evo_tvm.quantize.observers import MOMENTUM, OBSERVERS, Observer, make_observer
from evo_tvm.quantize.params import Range, Scheme

RNG = np.random.default_rng(0)
TENSORS = {
    "normal": RNG.standard_normal(60_000),
    "rectified": np.maximum(RNG.standard_normal(60_000), 0),
    "laplace": RNG.laplace(size=60_000),
    "shifted": RNG.standard_normal(60_000) + 3,
    "swish": (lambda x: x / (1 + np.exp(-x)))(3 * RNG.standard_normal(60_000)),
    "negative": -np.abs(RNG.standard_normal(60_000)),
}
TENSORS = {name: values.astype(np.float32) for name, values in TENSORS.items()}
SCHEMES = [Scheme(dtype, symmetric) for dtype in ("uint8", "int8") for symmetric in (False, True)]


def observed(observer: Observer, values: np.ndarray, parts: int = 7) -> Range:
    for part in np.array_split(values, parts):
        observer.add(part)
    return observer.range()


def squared_error(values: np.ndarray, span: Range, scheme: Scheme) -> float:
    return float(np.square(values - scheme.params(span).round_trip(values.astype(np.float64))).mean())


@pytest.mark.parametrize("name", TENSORS)
def test_minmax(name: str) -> None:
    values = TENSORS[name]
    found = observed(make_observer("minmax", Scheme(), 99.99), values)
    assert found == Range(values.min(), values.max())


def test_moving_average_is_the_recurrence() -> None:
    observer = make_observer("moving-average", Scheme(), 99.99)
    low, high = -1.0, 2.0
    observer.add(np.float32([low, high]))
    for step in range(1, 50):
        batch = np.float32([-1 - step / 10, 2 + step / 5])
        observer.add(batch)
        low = MOMENTUM * low + (1 - MOMENTUM) * float(batch[0])
        high = MOMENTUM * high + (1 - MOMENTUM) * float(batch[1])
    assert observer.range() == Range(low, high)


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 99.99, 100.0])
@pytest.mark.parametrize("name", TENSORS)
def test_percentile_is_numpys_to_a_bin(name: str, percentile: float) -> None:
    values = TENSORS[name]
    found = observed(make_observer("percentile", Scheme(), percentile), values)
    low, high = np.percentile(values, [100 - percentile, percentile])
    # A bin, or the gap between two neighbours in the tail, whichever is wider.
    ordered = np.sort(values)
    tail = max(2, int(len(values) * (1 - percentile / 100)) + 2)
    gap = float(max(np.diff(ordered[:tail]).max(), np.diff(ordered[-tail:]).max()))
    tolerance = max(gap, float(values.max() - values.min()) / 2000)
    assert found.low == pytest.approx(min(low, 0), abs=tolerance)
    assert found.high == pytest.approx(max(high, 0), abs=tolerance)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("name", TENSORS)
def test_mse_is_nearly_the_least_that_a_search_finds(name: str, scheme: Scheme) -> None:
    values = TENSORS[name]
    found = squared_error(values, observed(make_observer("mse", scheme, 99.99), values), scheme)
    low, high = float(values.min()), float(values.max())
    shares = np.linspace(0.1, 1, 19)
    least = min(squared_error(values, Range(low * a, high * b), scheme) for a in shares for b in shares)
    assert found <= least * 1.02


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("name", TENSORS)
def test_entropy_is_the_plain_search(name: str, scheme: Scheme) -> None:
    """The same search as plain loops over a histogram of numpy's, each divergence written out."""
    values = TENSORS[name].astype(np.float64)
    nonzero = values[values != 0]
    found = observed(make_observer("kl", scheme, 99.99), TENSORS[name])
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    width = 2.0 ** np.ceil(np.log2((high - low) / 8192))
    while np.floor(high / width) - np.floor(low / width) >= 8192:
        width *= 2
    while -np.floor(low / width) + np.floor(high / width) + 1 > 1024:
        width *= 2
    behind, ahead = int(-np.floor(low / width)), int(np.floor(high / width)) + 1
    ahead = 0 if high == 0 else ahead
    if scheme.symmetric and not (scheme.dtype == "uint8" and low >= 0):
        behind = ahead = max(behind, ahead)
    counts = np.histogram(nonzero, np.arange(-behind, ahead + 1) * width)[0]
    best = (np.inf, 0)
    for reach in range(1, max(behind, ahead) + 1, 16):  # every 16th: the divergence of the found one must beat them all
        best = min(best, (divergence(counts, behind, reach), reach))
    limit = max(-found.low, found.high)
    reach = round(limit / width) if limit < max(-low, high) else max(behind, ahead)
    assert divergence(counts, behind, reach) <= best[0] * (1 + 1e-9)
    assert (found.low, found.high) == (max(low, -reach * width), min(high, reach * width))


def divergence(counts: np.ndarray, zero: int, reach: int) -> float:
    first, last = max(zero - reach, 0), min(zero + reach, len(counts))
    kept = last - first
    if kept < 256:
        return np.inf
    reference = counts[first:last].astype(float)
    reference[0] += counts[:first].sum()
    reference[-1] += counts[last:].sum()
    quantized = np.zeros(kept)
    for level in range(256):
        run = slice(level * kept // 256, (level + 1) * kept // 256)
        inside = counts[first:last][run]
        if inside.any():
            quantized[run] = np.where(inside > 0, inside.sum() / (inside > 0).sum(), 0)
    p, q = reference / reference.sum(), quantized / quantized.sum()
    return float(sum(a * np.log(a / max(b, 1e-10)) for a, b in zip(p, q, strict=True) if a > 0))


def test_one_outlier_is_cut_off_where_it_costs_more_than_it_brings() -> None:
    values = np.concatenate([TENSORS["rectified"], np.float32([40.0])])
    found = {name: observed(make_observer(name, Scheme(), 99.9), values).high for name in OBSERVERS}
    assert found.pop("minmax") == 40
    assert found.pop("moving-average") < 40
    assert found.pop("mse") < 40  # a little: its square counts as much as 500 others
    assert max(found.values()) < 20 and min(found.values()) > 2, found


def test_values_of_few_kinds_are_not_cut_off() -> None:
    """Pixels: many are black, and all are one of 256 values."""
    pixels = RNG.choice(256, 100_000, p=np.concatenate([[0.5], np.full(255, 0.5 / 255)]))
    values = ((pixels / 255 - 0.3) / 0.35).astype(np.float32)
    for name in OBSERVERS:
        found = observed(make_observer(name, Scheme(), 99.99), values)
        assert found.low <= 0.97 * values.min() and found.high >= 0.97 * values.max(), name


@pytest.mark.parametrize("name", OBSERVERS)
@pytest.mark.parametrize("value", [0.0, 2.5, -1e-3, 1e-44])
def test_a_constant_tensor(name: str, value: float) -> None:
    found = observed(make_observer(name, Scheme(), 99.99), np.full(1000, value, np.float32))
    back = Scheme().params(found).round_trip(np.full(1, value))
    assert back[0] == pytest.approx(value, rel=0.01, abs=1e-36)


@pytest.mark.parametrize("name", OBSERVERS)
def test_nothing_was_seen(name: str) -> None:
    observer = make_observer(name, Scheme(), 99.99)
    observer.add(np.zeros((0,), np.float32))
    assert observer.range() == Range(0, 0)


def test_wrong_names_and_percentiles() -> None:
    with pytest.raises(UsageError, match="no observer 'entropy'\nChoose one of kl, minmax"):
        make_observer("entropy", Scheme(), 99.99)
    for percentile in (50, 0, -1, 100.1, float("nan")):
        with pytest.raises(UsageError, match="percentile is out of range"):
            make_observer("percentile", Scheme(), percentile)
