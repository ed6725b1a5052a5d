"""Figures with their provenance: a latency is never given without how, where and when it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from evo_tvm.runtime import cpu

if TYPE_CHECKING:
    from evo_tvm.runtime.gates import GateRate
    from evo_tvm.runtime.limits import Limits
    from evo_tvm.runtime.manifest import KernelInfo

#: Above this, `Benchmark.warning` says what to do.
SPREAD_LIMIT = 0.10


def percentile(values: Sequence[float], percent: float) -> float:
    """The value at `percent` (0 to 100) of the sorted values, interpolated between neighbours as numpy does."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


@dataclass(frozen=True)
class Provenance:
    """How a figure came about. `date` is UTC in ISO 8601; `target` is what the model was compiled for."""

    cpu: str
    cores: int
    threads: int
    target: str
    evo_tvm: str
    tvm: str
    date: str

    @staticmethod
    def now(threads: int, target: str, evo_tvm: str, tvm: str) -> Provenance:
        """Of a figure that is measured now, on this machine."""
        date = datetime.now(UTC).isoformat(timespec="seconds")
        return Provenance(cpu.model(), cpu.usable_cores(), threads, target, evo_tvm, tvm, date)


@dataclass(frozen=True)
class Benchmark:
    """Latencies of whole calls, in milliseconds, in the order in which they were measured."""

    samples_ms: tuple[float, ...]
    warmup: int
    provenance: Provenance

    @property
    def min_ms(self) -> float:
        return min(self.samples_ms)

    @property
    def median_ms(self) -> float:
        return percentile(self.samples_ms, 50)

    @property
    def p90_ms(self) -> float:
        return percentile(self.samples_ms, 90)

    @property
    def p99_ms(self) -> float:
        return percentile(self.samples_ms, 99)

    @property
    def spread(self) -> float:
        """(p90 - min) / median: 0 where all samples are equal."""
        return (self.p90_ms - self.min_ms) / self.median_ms if self.median_ms > 0 else 0.0

    @property
    def warning(self) -> str | None:
        """What to do about a spread that is too wide for the figure to be trusted; None where it is not."""
        if self.spread <= SPREAD_LIMIT:
            return None
        return (
            f"the samples spread by {self.spread:.0%}: something else uses this machine, or its clock changes. "
            "Stop other work, ask for no more threads than idle cores, and measure longer (min_time_s)."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, the derived figures included."""
        derived = {
            name: getattr(self, name) for name in ("min_ms", "median_ms", "p90_ms", "p99_ms", "spread", "warning")
        }
        return {**derived, **asdict(self)}

    def __str__(self) -> str:
        p = self.provenance
        return (
            f"{self.median_ms:.3f} ms median, {self.min_ms:.3f} min, {self.p90_ms:.3f} p90, {self.p99_ms:.3f} p99 "
            f"({len(self.samples_ms)} samples, {p.threads} thread{'s'[: p.threads > 1]}, {p.cpu})"
        )


@dataclass(frozen=True)
class KernelProfile:
    """The time of one kernel over all profiled runs.

    `share`: its part of the sum of all kernels' medians. `flops`, `bytes`: arithmetic, and memory touched at least, a
    call; 0 where they are not known. `dtype`: what it computes in, "float32" or "int8", of which `gflops_per_s` counts
    operations, too. The rates come from `min_ms`. `peak_share` and `memory_share` are their parts of what the CPU does
    at most, in that type; algorithms that need less arithmetic than the operator (Winograd), and memory that is still
    in a cache, exceed 1. `bound`: "arithmetic" or "memory", whichever of the two would take longer at its best;
    `bound_share`: that time in parts of `min_ms`. `predicted_ms`: what a predictor expected when it was
    compiled. None: not known.
    """

    name: str
    operator: str
    algorithm: str
    schedule: str
    layers: tuple[str, ...]
    min_ms: float
    median_ms: float
    share: float
    flops: int
    bytes: int
    gflops_per_s: float | None
    gbytes_per_s: float | None
    peak_share: float | None
    memory_share: float | None
    dtype: str = "float32"
    predicted_ms: float | None = None

    @property
    def bound(self) -> str | None:
        if self.bound_share is None:
            return None
        return "arithmetic" if self.peak_share == self.bound_share else "memory"

    @property
    def bound_share(self) -> float | None:
        return max((share for share in (self.peak_share, self.memory_share) if share is not None), default=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "bound": self.bound, "bound_share": self.bound_share}


@dataclass(frozen=True)
class Profile:
    """Where the time of a model goes, kernel by kernel in the order of calls. `total_ms`: median of whole runs.

    `peak_gflops_per_s`, `memory_gbytes_per_s`: what this CPU does at most on as many threads: float32 multiply-adds in
    the target's vectors, and reading memory, both measured in this process; None where they could not be.
    `integer_peak_gops_per_s`: multiply-adds of bytes, two operations each; None where no kernel computes in integers.
    `gates`: how often each gate was asked and on in these runs, those before the measured ones included.
    """

    kernels: tuple[KernelProfile, ...]
    total_ms: float
    samples: int
    peak_gflops_per_s: float | None
    memory_gbytes_per_s: float | None
    integer_peak_gops_per_s: float | None
    provenance: Provenance
    gates: tuple[GateRate, ...] = ()

    @property
    def gflops_per_s(self) -> float | None:
        """Of the whole model, over the sum of its kernels' shortest times."""
        return rate(sum(kernel.flops for kernel in self.kernels), self._min_ms)

    @property
    def gbytes_per_s(self) -> float | None:
        """Of the whole model, likewise."""
        return rate(sum(kernel.bytes for kernel in self.kernels), self._min_ms)

    @property
    def peak_share(self) -> float | None:
        """The time that all arithmetic would take at the peaks of what it is in, in parts of the time that it took."""
        counted = [kernel for kernel in self.kernels if kernel.gflops_per_s is not None]
        ideal_ms = [kernel.peak_share * kernel.min_ms for kernel in counted if kernel.peak_share is not None]
        return part(sum(ideal_ms), self._min_ms) if ideal_ms and len(ideal_ms) == len(counted) else None

    @property
    def memory_share(self) -> float | None:
        return part(self.gbytes_per_s, self.memory_gbytes_per_s)

    @property
    def _min_ms(self) -> float:
        return sum(kernel.min_ms for kernel in self.kernels)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, the derived figures included."""
        names = ("gflops_per_s", "gbytes_per_s", "peak_share", "memory_share")
        derived = {name: getattr(self, name) for name in names}
        return {**asdict(self), **derived, "kernels": [kernel.as_dict() for kernel in self.kernels]}


def profile_of(kernels: Sequence[KernelInfo], times_ms: np.ndarray, limits: Limits, provenance: Provenance) -> Profile:
    """The profile of runs whose kernels took `times_ms`, (runs, kernels), on a CPU of these limits."""
    medians, minima = np.median(times_ms, axis=0), times_ms.min(axis=0)
    total = float(medians.sum())
    memory = limits.memory_gbytes_per_s
    peaks = {"float32": limits.peak_gflops_per_s, "int8": limits.integer_peak_gops_per_s}
    profiles = []
    for kernel, median, least in zip(kernels, medians.tolist(), minima.tolist(), strict=True):
        gflops, gbytes = rate(kernel.flops, least), rate(kernel.bytes, least)
        profiles.append(
            KernelProfile(
                name=kernel.name,
                operator=kernel.operator,
                algorithm=kernel.algorithm,
                schedule=kernel.schedule,
                layers=kernel.layers,
                min_ms=least,
                median_ms=median,
                share=median / total if total > 0 else 0.0,
                flops=kernel.flops,
                bytes=kernel.bytes,
                gflops_per_s=gflops,
                gbytes_per_s=gbytes,
                peak_share=part(gflops, peaks.get(kernel.dtype)),
                memory_share=part(gbytes, memory),
                dtype=kernel.dtype,
                predicted_ms=kernel.predicted_ms if kernel.predicted_by == "predictor" else None,
            )
        )
    whole = percentile(times_ms.sum(axis=1).tolist(), 50)
    return Profile(
        kernels=tuple(profiles),
        total_ms=whole,
        samples=len(times_ms),
        peak_gflops_per_s=limits.peak_gflops_per_s,
        memory_gbytes_per_s=memory,
        integer_peak_gops_per_s=limits.integer_peak_gops_per_s,
        provenance=provenance,
    )


def rate(amount: int, ms: float) -> float | None:
    """`amount` per call of `ms` milliseconds, in units of 1e9 a second; None where either is not known."""
    return amount / ms / 1e6 if amount > 0 and ms > 0 else None


def part(value: float | None, whole: float | None) -> float | None:
    """value / whole; None where either is not known."""
    return value / whole if value is not None and whole else None
