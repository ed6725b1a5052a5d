"""Figures with their provenance: a latency is never given without how, where and when it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from evo_tvm.runtime import cpu

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
    """The time of one kernel over all profiled runs. `share` is its part of the sum of all kernels' medians; the
    rates come from `min_ms`, and are None where the model does not say how much the kernel does."""

    name: str
    operator: str
    algorithm: str
    schedule: str
    layers: tuple[str, ...]
    min_ms: float
    median_ms: float
    share: float
    gflops_per_s: float | None
    gbytes_per_s: float | None


@dataclass(frozen=True)
class Profile:
    """Where the time of a model goes, kernel by kernel in the order of calls. `total_ms`: median of whole runs."""

    kernels: tuple[KernelProfile, ...]
    total_ms: float
    samples: int
    provenance: Provenance

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def rate(amount: int, ms: float) -> float | None:
    """`amount` per call of `ms` milliseconds, in units of 1e9 a second; None where either is not known."""
    return amount / ms / 1e6 if amount > 0 and ms > 0 else None
