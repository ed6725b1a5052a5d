"""Tuning logs: one measurement a line, what is best by them, and lines that outlive a killed run."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from evo_tvm.errors import UsageError
from evo_tvm.target import Target
from evo_tvm.tune.folders import log_files, log_name, shipped_folder, user_folder
from evo_tvm.tune.revision import revision_of
from evo_tvm.workload import Workload


class LogWarning(UserWarning):
    """A line of a tuning log that cannot be read. It is skipped."""


@dataclass(frozen=True)
class Record:
    """One measurement.

    workload, target (its name in the logs), algorithm, config: what was measured; revision: of the kernel's sources;
    measured: "time" or "instructions"; samples_ms: raw; error: why there are none; provenance: TVM's version, CPU,
    date, and "final" for what was measured again beside its rivals.
    """

    workload: Workload
    target: str
    algorithm: str
    config: Mapping[str, Any]
    revision: str
    samples_ms: tuple[float, ...] = ()
    error: str = ""
    measured: str = "time"
    threads: int = 1
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def latency_ms(self) -> float:
        """The fastest sample; infinity where there is none."""
        return min(self.samples_ms, default=float("inf"))

    @property
    def rank(self) -> tuple[bool, float]:
        """What is better ranks lower: first what was measured beside its rivals, then what is faster."""
        return not self.provenance.get("final", False), self.latency_ms

    @property
    def stale(self) -> bool:
        """Whether the sources of the kernel have changed since."""
        return self.revision != revision_of(self.workload.operator, self.algorithm)

    def to_json(self) -> str:
        """The record as a line of a log, its newline left out."""
        fields = {
            "workload": self.workload.key,
            "output": list(self.workload.output),
            "epilogue": list(self.workload.epilogue),
            "target": self.target,
            "threads": self.threads,
            "algorithm": self.algorithm,
            "config": dict(self.config),
            "revision": self.revision,
            "measured": self.measured,
            "ms": [float(f"{ms:.4g}") for ms in self.samples_ms],
            **({"error": self.error} if self.error else {}),
            **self.provenance,
        }
        return json.dumps(fields, separators=(",", ":"))

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> Record:
        """The record that `to_json` wrote. Raises KeyError, TypeError, ValueError: it did not."""
        return Record(
            workload=Workload.from_key(fields["workload"], fields["output"], fields["epilogue"]),
            target=str(fields["target"]),
            algorithm=str(fields["algorithm"]),
            config=dict(fields["config"]),
            revision=str(fields["revision"]),
            samples_ms=tuple(map(float, fields["ms"])),
            error=str(fields.get("error", "")),
            measured=str(fields["measured"]),
            threads=int(fields["threads"]),
            provenance={name: value for name, value in fields.items() if name not in _FIELDS},
        )


_FIELDS = frozenset(
    "workload output epilogue target threads algorithm config revision measured ms error".split()
)


#: Target, threads, workload, algorithm.
_Key = tuple[str, int, str, str]


class Log:
    """Records by workload: `best` answers, `add` takes more into account."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._best: dict[_Key, tuple[tuple[bool, float], Record | Mapping[str, Any]]] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Takes the record into account, if it measured a time."""
        if record.measured == "time" and record.samples_ms:
            self._offer((record.target, record.threads, record.workload.key, record.algorithm), record.rank, record)

    def add_fields(self, fields: Mapping[str, Any]) -> None:
        """The same for the fields of a line, unless it is stale; it becomes a Record once it is asked for."""
        operator = fields["workload"].partition(" ")[0]
        if fields["measured"] == "time" and fields["ms"] and fields["revision"] == revision_of(
            operator, fields["algorithm"]
        ):
            key = (fields["target"], fields["threads"], fields["workload"], fields["algorithm"])
            self._offer(key, (not fields.get("final", False), min(fields["ms"])), fields)

    def _offer(self, key: _Key, rank: tuple[bool, float], found: Record | Mapping[str, Any]) -> None:
        if key not in self._best or rank < self._best[key][0]:
            self._best[key] = rank, found

    def best(self, target: Target, num_threads: int, workload: Workload, algorithm: str) -> Record | None:
        """The fastest configuration that was measured, None where nothing was."""
        found = self._best.get((log_name(target), num_threads, workload.key, algorithm))
        if found is None:
            return None
        return found[1] if isinstance(found[1], Record) else Record.from_json(found[1])


def log_of(target: Target) -> Log:
    """What the shipped logs and the user's own hold for the target: empty where they hold nothing. Stale lines, of
    kernels whose sources have changed since, do not count."""
    name = log_name(target)
    files = (*log_files(shipped_folder(), name), *log_files(user_folder(), name))
    return _read(tuple((path, status.st_mtime_ns, status.st_size) for path in files if (status := path.stat())))


@cache
def _read(files: tuple[tuple[Path, int, int], ...]) -> Log:
    log = Log()
    for path, _, _ in files:
        for fields in read_fields(path):
            log.add_fields(fields)
    return log


def read_fields(path: Path) -> Iterator[Mapping[str, Any]]:
    """The fields of each line of a log; a line that is broken is skipped with a LogWarning that names it.

    Raises UsageError: the file cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(f"cannot read this log: {(error.strerror or str(error)).lower()}", where=path) from None
    for number, line in enumerate(lines, 1):
        try:
            fields = json.loads(line)
            if fields.keys() < _FIELDS - {"error"} or not isinstance(fields["ms"], list):
                raise ValueError
        except (ValueError, AttributeError, KeyError, RecursionError):
            warnings.warn(f"{path}, line {number}: not a measurement; it is skipped", LogWarning, stacklevel=2)
            continue
        yield fields


def read_records(folder: Path, target: str) -> Iterator[Record]:
    """All records of the target of this name in `folder`, stale ones included."""
    for path in log_files(folder, target):
        for fields in read_fields(path):
            yield Record.from_json(fields)


def append(folder: Path, record: Record) -> None:
    """Adds a line to <folder>/<target>/<algorithm>.jsonl. A process that is killed meanwhile loses this line alone.

    Raises UsageError: the file cannot be written.
    """
    path = folder / record.target / f"{record.algorithm}.jsonl"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            broken = size > 0 and file.read(1) != b"\n"  # of a process that was killed: what follows shall not join it
            file.write((b"\n" if broken else b"") + record.to_json().encode() + b"\n")
    except OSError as error:
        raise UsageError(
            f"cannot write this log: {(error.strerror or str(error)).lower()}",
            where=path,
            hint="Name a folder that you may write with --log.",
        ) from None
