"""What was measured of a candidate => a line of a log."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from evo_tvm.decide import config_fields
from evo_tvm.target import Target
from evo_tvm.tune.folders import log_name
from evo_tvm.tune.log import Record
from evo_tvm.tune.measure import Result
from evo_tvm.tune.one_kernel import Candidate
from evo_tvm.tune.revision import revision_of


def recorded(
    candidate: Candidate,
    target: Target,
    result: Result,
    provenance: Mapping[str, Any],
    *,
    threads: int = 1,
    measured: str = "time",
) -> Record:
    """The record, dated now. provenance: where the figures come from; how slow the machine was is added to it, where it
    was not quick. measured: as of `Record`."""
    operator, name = candidate.workload.operator, candidate.algorithm
    slow = {"slowness": round(result.slowness, 2)} if result.slowness > 1 else {}
    return Record(
        candidate.workload,
        log_name(target),
        name,
        config_fields(candidate.config) if candidate.config is not None else {},
        revision_of(target.isa, operator, name),
        result.samples_ms,
        result.error,
        measured=measured,
        threads=threads,
        provenance={**provenance, "date": datetime.now(UTC).isoformat(timespec="seconds"), **slow},
    )
