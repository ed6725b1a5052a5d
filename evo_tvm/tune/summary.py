"""What tuning logs hold, and the same with only what matters kept."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evo_tvm.files import write_whole
from evo_tvm.tune.log import LogWarning, Record, read_file


@dataclass(frozen=True)
class FileSummary:
    """One log. lines: that could be read; broken: that could not; failures: without a time; stale: of kernels that
    have changed since; workloads: distinct ones with a time that is not stale."""

    path: str
    size_bytes: int
    lines: int
    broken: int
    failures: int
    stale: int
    workloads: int

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return asdict(self)


def summarize(path: Path) -> FileSummary:
    """Counts the lines of a log. Raises UsageError: it cannot be read."""
    records, broken = _read(path)
    fresh = [record for record in records if record.samples_ms and not record.stale]
    return FileSummary(
        path=str(path),
        size_bytes=path.stat().st_size,
        lines=len(records),
        broken=broken,
        failures=sum(bool(record.error) for record in records),
        stale=sum(record.stale for record in records),
        workloads=len({record.workload for record in fresh}),
    )


def best_of(paths: Iterable[Path], count: int = 1) -> Iterator[Record]:
    """The `count` best configurations for each target, threads, workload and algorithm, stale lines left out; sorted
    by workload, threads and rank."""
    groups: dict[tuple[str, int, str, str], dict[str, Record]] = {}
    for path in paths:
        for record in _read(path)[0]:
            if record.samples_ms and not record.stale:
                key = (record.workload.key, record.threads, record.target, record.algorithm)
                configs, name = groups.setdefault(key, {}), repr(sorted(record.config.items()))
                configs[name] = min(record, configs.get(name, record), key=lambda r: r.rank)
    for _, configs in sorted(groups.items()):
        yield from sorted(configs.values(), key=lambda r: r.rank)[:count]


def compact(path: Path, count: int = 3) -> int:
    """Keeps of a log the `count` best configurations for each workload and number of threads; failures, stale and
    broken lines go. Returns how many lines are left. Raises UsageError: it cannot be read or written."""
    records = list(best_of([path], count))
    with write_whole(path) as file:
        for record in records:
            file.write(record.to_json().encode() + b"\n")
    return len(records)


def _read(path: Path) -> tuple[list[Record], int]:
    """(the records of a log, how many of its lines are broken)"""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LogWarning)
        records = list(read_file(path))
    return records, sum(issubclass(w.category, LogWarning) for w in caught)
