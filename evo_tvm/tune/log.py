"""Tuning logs: one measurement a line, what is best by them, and lines that outlive a killed run."""

from __future__ import annotations

import json
import lzma
import math
import os
import tempfile
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from dataclasses import fields as fields_of
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.errors import UsageError
from evo_tvm.target import Target
from evo_tvm.tune.folders import COMPRESSED, best_files, log_files, log_name, shipped_folder, user_folder
from evo_tvm.tune.revision import METASCHEDULE, is_stale
from evo_tvm.workload import Fused, Workload


class LogWarning(UserWarning):
    """A line of a tuning log that cannot be read. It is skipped."""


@cache
def _tvm_version() -> str:
    return version("apache-tvm")


@dataclass(frozen=True)
class Record:
    """One measurement.

    workload, target (its name in the logs), algorithm, config: what was measured; revision: of the algorithm's kernels;
    measured: "time", "instructions" or "emulated"; samples_ms: raw, of instructions in thousands; error: why none;
    provenance: TVM's version, CPU, date, "final" for what was measured again beside its rivals, and of a function of
    TIR the "trace" of its schedule.
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
    def kernel(self) -> tuple[Fused, str, tuple[tuple[str, Any], ...]]:
        """What tells measured kernels apart: the workload with all that is fused with it, algorithm, configuration."""
        return self.workload.kernel, self.algorithm, tuple(sorted(self.config.items()))

    @property
    def latency_ms(self) -> float:
        """The fastest sample; infinity where there is none."""
        return min(self.samples_ms, default=float("inf"))

    @property
    def timer(self) -> int:
        """How samples were taken (`evo_tvm.tune.measure.TIMER`)."""
        return int(self.provenance.get("timer", 1))

    @property
    def steady(self) -> bool:
        """Whether the clock was the same for all kernels: `timer` is 2 or more. Counts of instructions always are."""
        return self.measured != "time" or self.timer >= 2

    @property
    def rank(self) -> tuple[bool, int, float]:
        """What is better ranks lower: first what was measured beside its rivals, then as it is done now, then what is
        faster."""
        return not self.provenance.get("final", False), -self.timer, self.latency_ms

    @property
    def stale(self) -> bool:
        """Whether the kernel has changed since, or another TVM has compiled it, or it has no such configuration."""
        other = self.provenance.get("tvm", _tvm_version()) != _tvm_version()
        return other or is_stale(self.revision, self.workload.operator, self.algorithm) or not self._has_config()

    def _has_config(self) -> bool:
        algorithm = ALGORITHMS.get(self.workload.operator, {}).get(self.algorithm)
        if algorithm is None:
            return not self.config and (self.algorithm != METASCHEDULE or isinstance(self.provenance.get("trace"), str))
        known = {field.name: field.default is MISSING for field in fields_of(algorithm.config_type)}
        whole = all(name in self.config for name, needed in known.items() if needed)
        return whole and all(name in known and isinstance(value, int) for name, value in self.config.items())

    def to_json(self) -> str:
        """The record as a line of a log, its newline left out."""
        fields = {
            "workload": self.workload.key,
            "output": list(self.workload.output),
            "epilogue": list(self.workload.epilogue),
            **({"between": list(self.workload.between)} if self.workload.between else {}),
            "target": self.target,
            "threads": self.threads,
            "algorithm": self.algorithm,
            "config": dict(self.config),
            "revision": self.revision,
            "measured": self.measured,
            _UNITS[self.measured]: [float(f"{ms:.4g}") for ms in self.samples_ms],
            **({"error": self.error} if self.error else {}),
            **self.provenance,
        }
        return json.dumps({**fields, _CHECK: _checksum(fields)}, separators=(",", ":"))

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> Record:
        """The record that `to_json` wrote. Raises KeyError, TypeError, ValueError: it did not, or was altered since."""
        if not all(isinstance(fields[name], kind) for name, kind in _KINDS.items()):
            raise TypeError
        between = fields.get("between", [])
        if not isinstance(between, list):
            raise TypeError
        if _CHECK in fields and fields[_CHECK] != _checksum(fields):
            raise ValueError
        measured = fields["measured"]
        samples = tuple(map(float, fields[_UNITS[measured]]))
        threads, output = int(fields["threads"]), fields["output"]
        if not all(0 < sample < math.inf for sample in samples) or threads < 1 or min(output, default=1) < 1:
            raise ValueError
        if not isinstance(fields.get("timer", 1), int):
            raise TypeError
        return Record(
            workload=Workload.from_key(fields["workload"], fields["output"], fields["epilogue"], between),
            target=str(fields["target"]),
            algorithm=str(fields["algorithm"]),
            config=dict(fields["config"]),
            revision=str(fields["revision"]),
            samples_ms=samples,
            error=str(fields.get("error", "")),
            measured=measured,
            threads=threads,
            provenance={name: value for name, value in fields.items() if name not in _FIELDS},
        )


#: What every line has, beside its provenance; some have an "error", or what is "between" two convolutions.
_KINDS: Mapping[str, type] = {
    "workload": str,
    "output": list,
    "epilogue": list,
    "target": str,
    "threads": int,
    "algorithm": str,
    "config": dict,
    "revision": str,
    "measured": str,
}
#: What was measured => the name of its samples: milliseconds, thousands of instructions, or milliseconds that an
#: emulator took. What stands first counts, where there is any of it.
_UNITS: Mapping[str, str] = {"time": "ms", "instructions": "kinstructions", "emulated": "emulated_ms"}
#: A checksum of all others; lines that somebody has written by hand need none.
_CHECK = "check"
_FIELDS = frozenset((*_KINDS, *_UNITS.values(), "between", "error", _CHECK))
#: How `Record.to_json` begins a line.
_BEGIN = '{"workload":"'


def _checksum(fields: Mapping[str, Any]) -> str:
    """Of a line's fields, in whatever order."""
    text = json.dumps({name: value for name, value in fields.items() if name != _CHECK}, sort_keys=True)
    return f"{zlib.crc32(text.encode()):08x}"


#: What was measured, target, threads, workload, algorithm.
_Key = tuple[str, str, int, str, str]


class Log:
    """Records by workload: `best` answers, `add` takes more into account."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._best: dict[_Key, Record] = {}
        self._measured: dict[tuple[str, int, str], set[str]] = {}
        self._unread: dict[str, list[_Line]] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Takes the record into account, if it is no failure."""
        kernel = (record.target, record.threads, record.workload.key)
        key = (record.measured, *kernel, record.algorithm)
        known = self._best.get(key)
        if record.samples_ms and (known is None or record.rank < known.rank):
            self._best[key] = record
            self._measured.setdefault(kernel, set()).add(record.measured)

    def add_file(self, path: Path) -> None:
        """The same for what is in a file, stale lines left out; they are read once their workload is asked for."""
        for line in _lines(path):
            workload, begun, _ = line.text.removeprefix(_BEGIN).partition('"')
            self._unread.setdefault(workload if begun and line.text.startswith(_BEGIN) else "", []).append(line)
        self._read("")

    def _read(self, workload: str) -> None:
        for line in self._unread.pop(workload, ()):
            record = line.record()
            if record is not None and not record.stale:
                self.add(record)

    def best(self, target: Target, num_threads: int, workload: Workload, algorithm: str) -> Record | None:
        """The fastest configuration that was measured, None where nothing was. What an emulator counted stands in for
        times where there are none of the workload at all: the two do not compare."""
        self._read(workload.key)
        kernel = (log_name(target), num_threads, workload.key)
        metric = next((name for name in _UNITS if name in self._measured.get(kernel, ())), "")
        return self._best.get((metric, *kernel, algorithm))


def log_of(target: Target) -> Log:
    """What the shipped logs and the user's own hold for the target: empty where they hold nothing. Stale lines, of
    kernels that have changed since, do not count."""
    name = log_name(target)
    files = (*best_files(shipped_folder(), name), *log_files(user_folder(), name))
    states = ((path, path.stat()) for path in files)
    return _log_of(tuple((path, state.st_mtime_ns, state.st_size) for path, state in states))


@cache
def _log_of(files: tuple[tuple[Path, int, int], ...]) -> Log:
    log = Log()
    for path, _, _ in files:
        log.add_file(path)
    return log


class _Line(NamedTuple):
    """One line of a log."""

    path: Path
    number: int
    text: str

    def record(self) -> Record | None:
        """What it says; None, with a LogWarning, where it is broken."""
        try:
            return Record.from_json(json.loads(self.text))
        except (ValueError, TypeError, KeyError, RecursionError):
            where = f"{self.path}, line {self.number}"
            warnings.warn(f"{where}: not a measurement; it is skipped", LogWarning, stacklevel=2)
            return None


def _lines(path: Path) -> list[_Line]:
    """Raises UsageError: the file cannot be read."""
    try:
        text = _text(path)
    except OSError as error:
        raise UsageError(f"cannot read this log: {(error.strerror or str(error)).lower()}", where=path) from None
    lines = text.removesuffix("\n").split("\n") if text else []
    return [_Line(path, number, line) for number, line in enumerate(lines, 1)]


def _text(path: Path) -> str:
    """Of a compressed log that was cut short or altered, what is before that."""
    if not path.name.endswith(COMPRESSED):
        return path.read_text(encoding="utf-8", errors="replace")
    unpack, found = lzma.LZMADecompressor(), b""
    with open(path, "rb") as file:
        try:
            while not unpack.eof and (piece := file.read(1 << 16)):
                found += unpack.decompress(piece)
            whole = unpack.eof
        except lzma.LZMAError:
            whole = False
    if not whole:
        warnings.warn(f"{path}: it is damaged; what is before that counts", LogWarning, stacklevel=2)
        found = found[: found.rfind(b"\n") + 1]
    return found.decode(errors="replace")


def read_file(path: Path) -> Iterator[Record]:
    """The records of a log, stale ones included; a line that is broken is skipped with a LogWarning that names it.

    Raises UsageError: the file cannot be read.
    """
    return (record for line in _lines(path) if (record := line.record()) is not None)


def read_records(folder: Path, target: str) -> Iterator[Record]:
    """All records of the target of this name in `folder`, stale ones included."""
    for path in log_files(folder, target):
        yield from read_file(path)


def check_writable(folder: Path, target: str) -> None:
    """Makes the target's folder. Raises UsageError: that fails, or it takes no files: before the work, not after."""
    try:
        (folder / target).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / target):
            pass
    except OSError as error:
        raise _cannot_write(folder / target, error) from None


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
        raise _cannot_write(path, error) from None


def _cannot_write(path: Path, error: OSError) -> UsageError:
    reason = (error.strerror or str(error)).lower()
    hint = "Name a folder that you may write with --log."
    return UsageError(f"cannot write this log: {reason}", where=path, hint=hint)
