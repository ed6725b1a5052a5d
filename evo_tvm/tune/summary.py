"""What tuning logs hold, and the same with only what matters kept."""

from __future__ import annotations

import lzma
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evo_tvm.errors import UsageError
from evo_tvm.files import write_whole
from evo_tvm.tune.folders import BEST, COMPRESSED
from evo_tvm.tune.log import LogWarning, Record, read_file


@dataclass(frozen=True)
class FileSummary:
    """One log. lines: that could be read; broken: that could not; failures: without a time; stale: of kernels that have
    changed since, or of another TVM; misplaced: of another target than its folder says; emulated: of an
    emulator, instructions included; workloads: distinct ones with a time that is not stale."""

    path: str
    size_bytes: int
    lines: int
    broken: int
    failures: int
    stale: int
    misplaced: int
    emulated: int
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
        misplaced=sum(record.target != path.parent.name for record in records),
        emulated=sum(record.measured != "time" for record in records),
        workloads=len({record.workload for record in fresh}),
    )


def best_of(paths: Iterable[Path], count: int = 1) -> Iterator[Record]:
    """The `count` best configurations for each target, threads, workload and algorithm, stale lines left out; sorted
    by workload, threads and rank."""
    groups: dict[tuple[str, int, str, str, str], dict[str, Record]] = {}
    for path in paths:
        for record in _read(path)[0]:
            if record.samples_ms and not record.stale:
                key = (record.workload.key, record.threads, record.target, record.algorithm, record.measured)
                configs, name = groups.setdefault(key, {}), repr(sorted(record.config.items()))
                configs[name] = min(record, configs.get(name, record), key=lambda r: r.rank)
    for _, configs in sorted(groups.items()):
        yield from sorted(configs.values(), key=lambda r: r.rank)[:count]


def compact(path: Path, count: int = 3) -> int:
    """Keeps of a log the `count` best configurations for each workload and number of threads; failures, stale and
    broken lines go. Returns how many lines are left. Raises UsageError: it cannot be read or written."""
    records = list(best_of([path], count))
    write_log(path, records)
    return len(records)


def merge(paths: Sequence[Path], out: Path, compress: bool = False) -> int:
    """Adds all that the logs hold to <out>/<target>/<algorithm>.jsonl, each line once, sorted by workload; broken and
    stale lines go. compress: into .jsonl.xz instead, and the best configurations of all into best.jsonl.xz. Returns how
    many lines there are then.

    Raises UsageError: one of them cannot be read or written.
    """
    before = logs_in([out]) if out.is_dir() else []
    groups: dict[tuple[str, str], dict[str, Record]] = {}
    for path in dict.fromkeys([*before, *paths]):
        for record in _read(path)[0]:
            if not record.stale:
                groups.setdefault((record.target, record.algorithm), {})[record.to_json()] = record
    for (target, algorithm), lines in groups.items():
        (out / target).mkdir(parents=True, exist_ok=True)
        records = [lines[text] for text in sorted(lines)]
        endings = [".jsonl", COMPRESSED]
        write_log(out / target / f"{algorithm}{endings[compress]}", records)
        (out / target / f"{algorithm}{endings[not compress]}").unlink(missing_ok=True)
    for target in {target for target, _ in groups} if compress else ():
        logs = sorted(path for path in (out / target).glob(f"*{COMPRESSED}") if path.name != BEST)
        write_log(out / target / BEST, list(best_of(logs)))
    return sum(map(len, groups.values()))


def write_log(path: Path, records: Sequence[Record]) -> None:
    """Writes a log whole, compressed where its name says so. Raises UsageError: it cannot be written."""
    text = b"".join(record.to_json().encode() + b"\n" for record in records)
    with write_whole(path) as file:
        file.write(lzma.compress(text, preset=9) if path.name.endswith(COMPRESSED) else text)


def logs_in(folders: Iterable[Path]) -> list[Path]:
    """The logs of all targets in the folders, as `tune` and `merge` write them. Raises UsageError: no such folder."""
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise UsageError("there is no such folder", where=folder)
        paths = [*folder.glob("*/*.jsonl"), *folder.glob(f"*/*{COMPRESSED}")]
        found += sorted(path for path in paths if path.name != BEST or not _has_others(path.parent))
    return found


def _has_others(folder: Path) -> bool:
    """Whether there are logs beside the best."""
    return any(path.name != BEST for path in folder.glob(f"*{COMPRESSED}"))


def _read(path: Path) -> tuple[list[Record], int]:
    """(the records of a log, how many of its lines are broken)"""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LogWarning)
        records = list(read_file(path))
    return records, sum(issubclass(w.category, LogWarning) for w in caught)
