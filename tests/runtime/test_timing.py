"""Profiles: shares, rates, and what bounds a kernel."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from evo_tvm.runtime.limits import Limits
from evo_tvm.runtime.manifest import KernelInfo
from evo_tvm.runtime.timing import Profile, Provenance, profile_of

KERNELS = [
    KernelInfo("busy", "conv2d", "direct", flops=2_000_000, bytes=1_000_000),
    KernelInfo("hungry", "add", "elementwise", flops=1_000_000, bytes=4_000_000),
    KernelInfo("unknown", "tir", "default", "serial"),
]
TIMES_MS = np.array([[2.0, 1.0, 1.0], [1.0, 0.5, 1.0], [3.0, 1.5, 1.0]])


LIMITS = Limits(4.0, 16.0)


def profile(limits: Limits = LIMITS) -> Profile:
    return profile_of(KERNELS, TIMES_MS, limits, Provenance("cpu", 2, 1, "host", "0.1", "0.27", "today"))


def test_times_are_medians_and_rates_those_of_the_fastest_run() -> None:
    busy, hungry, _ = profile().kernels
    assert (busy.median_ms, busy.min_ms, busy.share) == (2.0, 1.0, 0.5)
    assert (busy.gflops_per_s, busy.gbytes_per_s) == (2.0, 1.0)
    assert (hungry.gflops_per_s, hungry.gbytes_per_s) == (2.0, 8.0)
    assert profile().total_ms == 4.0 and profile().samples == 3


def test_the_bound_is_what_would_take_longer_at_its_best() -> None:
    busy, hungry, unknown = profile().kernels
    assert (busy.peak_share, busy.memory_share, busy.bound, busy.bound_share) == (0.5, 1 / 16, "arithmetic", 0.5)
    assert (hungry.peak_share, hungry.memory_share, hungry.bound, hungry.bound_share) == (0.5, 0.5, "arithmetic", 0.5)
    assert (unknown.peak_share, unknown.memory_share, unknown.bound, unknown.bound_share) == (None,) * 4
    _, hungry, _ = profile(Limits(4.0, 10.0)).kernels
    assert (hungry.bound, hungry.bound_share) == ("memory", 0.8)


def test_totals_are_over_all_kernels() -> None:
    whole = profile()
    assert whole.gflops_per_s == pytest.approx(3 / 2.5) and whole.gbytes_per_s == pytest.approx(5 / 2.5)
    assert whole.peak_share == pytest.approx(0.3) and whole.memory_share == pytest.approx(0.125)


def mixed(limits: Limits) -> Profile:
    kernels = [KERNELS[0], replace(KERNELS[1], dtype="int8"), KERNELS[2]]
    return profile_of(kernels, TIMES_MS, limits, Provenance("cpu", 2, 1, "host", "0.1", "0.27", "today"))


def test_each_kernel_is_compared_with_the_peak_of_its_type() -> None:
    whole = mixed(Limits(4.0, 16.0, 10.0))
    busy, hungry, _ = whole.kernels
    assert (busy.dtype, busy.peak_share) == ("float32", 0.5) and (hungry.dtype, hungry.peak_share) == ("int8", 0.2)
    assert hungry.bound == "memory"
    assert whole.peak_share == pytest.approx((0.5 * 1.0 + 0.2 * 0.5) / 2.5)
    assert mixed(Limits(4.0, 16.0)).peak_share is None, "a part of the arithmetic has nothing to compare with"
    assert json.loads(json.dumps(whole.as_dict()))["integer_peak_gops_per_s"] == 10.0


def test_what_could_not_be_measured_is_left_out() -> None:
    whole = profile(Limits(None, None))
    assert whole.peak_share is None and whole.gflops_per_s is not None
    assert all(kernel.bound is None for kernel in whole.kernels)
    assert profile(Limits(None, 16.0)).kernels[0].bound == "memory"


def test_json_has_the_derived_figures() -> None:
    data = json.loads(json.dumps(profile().as_dict()))
    assert data["peak_gflops_per_s"] == 4.0 and data["memory_gbytes_per_s"] == 16.0
    assert data["peak_share"] == pytest.approx(0.3) and data["provenance"]["cpu"] == "cpu"
    assert data["kernels"][0]["bound"] == "arithmetic" and data["kernels"][0]["bound_share"] == 0.5
    assert data["kernels"][2]["bound"] is None and data["kernels"][2]["schedule"] == "serial"
