"""A model over real inputs: how long each takes, which way through the gates it goes, and how often it is right."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evo_tvm.errors import InputError
from evo_tvm.runtime import Module
from evo_tvm.runtime.gates import GateRate
from evo_tvm.runtime.timing import percentile

#: Of the ways that inputs take, so many are shown one by one.
_SHOWN = 12


@dataclass(frozen=True)
class PathShare:
    """A way through the gates: those that did not let it do everything, and the share of inputs that take it."""

    path: str
    share: float


@dataclass(frozen=True)
class Measured:
    """Latencies in milliseconds over `inputs` inputs, one after the other, as they come.

    accuracy: share of labels that the greatest output meets; None: there are no labels. paths: the most frequent first,
    the rare ones together.
    """

    inputs: int
    average_ms: float
    median_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    accuracy: float | None
    paths: tuple[PathShare, ...]
    gates: tuple[GateRate, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def measure_inputs(module: Module, samples: Iterable[tuple[Mapping[str, np.ndarray], int]]) -> Measured:
    """Runs the model once on each input; an input's label is -1 where it has none. The first run is not counted.

    Raises InputError: there are no inputs.
    """
    times: list[float] = []
    right: list[bool] = []
    paths: Counter[str] = Counter()
    for number, (feed, label) in enumerate(samples):
        if number == 0:
            module.run(feed)
            if module.gates:
                module.gate_rates(reset=True)
        begin = time.perf_counter_ns()
        found = module.run(feed)
        times.append((time.perf_counter_ns() - begin) / 1e6)
        paths[_path(module)] += 1
        if label >= 0:
            right.append(int(np.argmax(found[module.outputs[0].name])) == label)
    if not times:
        raise InputError("there are no inputs to measure with")
    shares = [PathShare(path, count / len(times)) for path, count in paths.most_common()]
    if len(shares) > _SHOWN:
        rest = shares[_SHOWN - 1 :]
        shares = [*shares[: _SHOWN - 1], PathShare(f"{len(rest)} other ways", sum(p.share for p in rest))]
    return Measured(
        inputs=len(times),
        average_ms=sum(times) / len(times),
        median_ms=percentile(times, 50),
        p90_ms=percentile(times, 90),
        p99_ms=percentile(times, 99),
        max_ms=max(times),
        accuracy=sum(right) / len(right) if right else None,
        paths=tuple(shares),
        gates=module.gate_rates() if module.gates else (),
    )


def _path(module: Module) -> str:
    """The gates that left something out in the last run, as one text."""
    if not module.gates:
        return "all"
    said = []
    for gate, record in zip(module.gates, module.gate_log(), strict=True):
        asked = ~np.isnan(record.scores)
        if gate.decisions == 1 and asked.any() and bool(record.on.flat[0]) != gate.full:
            said.append(f"{gate.kind} {gate.name}")
        elif gate.decisions > 1 and asked.any():
            share = round(4 * float(record.on[asked].mean())) / 4
            if share < 1:
                said.append(f"{gate.kind} {gate.name} about {share:.0%}")
    return ", ".join(said) or "all"
