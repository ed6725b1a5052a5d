"""The gates of a loaded model: their thresholds, which may change between runs, and what they decided.

Thresholds, scores, decisions and counts are arrays inside the model's library, which every Module loads for itself.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evo_tvm.errors import UsageError
from evo_tvm.runtime.environment import Environment, read_environment

if TYPE_CHECKING:
    from evo_tvm.runtime.library import Library

Budget = float | Callable[[Environment], float]
Decisions = np.ndarray[Any, np.dtype[np.bool_]]

#: Budgets whose points of the curve are remembered.
_REMEMBERED = 64


@dataclass(frozen=True)
class GateInfo:
    """A gate of a compiled model.

    kind: "skip", "exit", "channel", "space" or "precision". threshold: what a score must exceed for the gate to be on,
    unless the runtime is told otherwise. decisions: how many it makes a run: one, or one for each block or tile.
    """

    name: str
    kind: str
    threshold: float
    decisions: int = 1

    @property
    def full(self) -> bool:
        """The decision with which the model computes what it does without this gate."""
        return self.kind != "exit"


@dataclass(frozen=True)
class CurvePoint:
    """Thresholds of all gates, and what they cost: latency in parts of the model's without gates, and accuracy."""

    thresholds: tuple[float, ...]
    latency: float
    accuracy: float


@dataclass(frozen=True)
class GateRecord:
    """What a gate found in the last run, an array element for each of its decisions; for batches (N, decisions).

    scores: float32, NaN where the gate was not asked. on: bool; where it was not asked, False.
    """

    name: str
    kind: str
    scores: np.ndarray[Any, np.dtype[np.float32]]
    on: np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class GateRate:
    """How often a gate decided since the rates were last reset, and the share of decisions that were on."""

    name: str
    kind: str
    asked: int
    rate: float | None


class Gates:
    """Sets and reads the gates of one library."""

    def __init__(
        self, library: Library, gates: Sequence[GateInfo], curve: Sequence[CurvePoint], samples: int = 1
    ) -> None:
        self.infos, self.curve = tuple(gates), sorted(curve, key=lambda point: point.latency)
        self._budget: Budget | None = None
        self._chosen = [gate.threshold for gate in gates]
        self._forced: dict[int, Decisions] = {}
        self._changed = True
        self._point: CurvePoint | None = None
        self._points: dict[float, CurvePoint] = {}
        decisions = sum(gate.decisions for gate in gates)
        self._thresholds = library.array("evo_gate_thresholds", ctypes.c_float, decisions)
        self._scores = library.array("evo_gate_scores", ctypes.c_float, samples * decisions)
        self._decisions = library.array("evo_gate_decisions", ctypes.c_int32, samples * decisions)
        self._counts = library.array("evo_gate_counts", ctypes.c_uint64, 2 * len(gates))
        self._samples = samples

    def set_thresholds(self, thresholds: Mapping[str, float] | Sequence[float]) -> None:
        """Replaces thresholds: by name, those given; as a sequence, all, in order. Raises UsageError."""
        if isinstance(thresholds, Mapping):
            new = list(self._chosen)
            for name, value in thresholds.items():
                new[self._number(name)] = value
        else:
            new = list(thresholds)
            if len(new) != len(self.infos):
                raise UsageError("wrong number of thresholds", expected=len(self.infos), got=len(new))
        for gate, value in zip(self.infos, new, strict=True):
            if math.isnan(value):
                raise UsageError("a threshold must be a number", where=gate.name, got=value)
        self._chosen, self._changed = [float(value) for value in new], True

    def force(self, decisions: Mapping[str, bool | Decisions | None] | str | None) -> None:
        """Gates that are on (True) or off (False) whatever they see, until forced otherwise; None: free again.

        bool [decisions] instead: each decision of the gate so.

        "full" instead: every gate decides for what the model computes without gates. None: all are free.
        """
        if decisions is None:
            self._forced = {}
        elif isinstance(decisions, str):
            if decisions != "full":
                raise UsageError("unknown way to force all gates", expected="full", got=decisions)
            self._forced = {i: np.full(gate.decisions, gate.full) for i, gate in enumerate(self.infos)}
        else:
            for number, on in [(self._number(name), on) for name, on in decisions.items()]:
                if on is None:
                    self._forced.pop(number, None)
                else:
                    self._forced[number] = self._each(number, on)
        self._changed = True

    def set_budget(self, budget: Budget | None) -> None:
        """The budget of runs that are given none. Raises UsageError: the model has no curve."""
        if budget is not None:
            self._best(budget)
        self._budget = budget

    def prepare(self, budget: Budget | None) -> None:
        """Writes the thresholds for the next run. budget: for that run alone, else the one that was set."""
        wanted = self._budget if budget is None else budget
        point = None if wanted is None else self._best(wanted)
        if not self._changed and point is self._point:
            return
        values = [
            np.where(self._forced[i], -np.inf, np.inf).tolist() if i in self._forced else [value] * gate.decisions
            for i, (gate, value) in enumerate(
                zip(self.infos, self._chosen if point is None else point.thresholds, strict=True)
            )
        ]
        self._thresholds[:] = [value for some in values for value in some]
        self._changed, self._point = False, point

    def _best(self, budget: Budget) -> CurvePoint:
        """The most accurate point within the budget, or the fastest of all."""
        if not self.curve:
            raise UsageError(
                "this model has no accuracy-latency curve to move along",
                where="budget",
                hint="Make one with evo-tvm gate, or set thresholds yourself.",
            )
        share: object = budget(read_environment()) if callable(budget) else budget
        if isinstance(share, float) and share in self._points:
            return self._points[share]
        if not isinstance(share, float | int) or isinstance(share, bool) or not share > 0:
            raise UsageError("a budget is a share of the latency without gates", expected="above 0", got=repr(share))
        affordable = [point for point in self.curve if point.latency <= share]
        best = max(affordable, key=lambda point: (point.accuracy, -point.latency)) if affordable else self.curve[0]
        if len(self._points) < _REMEMBERED:
            self._points[float(share)] = best
        return best

    def thresholds(self) -> dict[str, float]:
        """What the next run uses, forced gates as infinities; of a gate with several decisions the least."""
        self.prepare(None)
        values, at = {}, 0
        for gate in self.infos:
            values[gate.name] = float(min(self._thresholds[at : at + gate.decisions]))
            at += gate.decisions
        return values

    def log(self) -> tuple[GateRecord, ...]:
        """What the gates found in the last run."""
        scores = np.array(self._scores, np.float32).reshape(self._samples, -1)
        decisions = np.array(self._decisions, np.int32).reshape(self._samples, -1) != 0
        records, at = [], 0
        for gate in self.infos:
            some = slice(at, at + gate.decisions)
            pick = (scores[:, some], decisions[:, some]) if self._samples > 1 else (scores[0, some], decisions[0, some])
            records.append(GateRecord(gate.name, gate.kind, *pick))
            at += gate.decisions
        return tuple(records)

    def counts(self) -> list[int]:
        """Of each gate the decisions it made, and those that were on, one after the other."""
        return list(self._counts)

    def rates(self, reset: bool = False, since: Sequence[int] | None = None) -> tuple[GateRate, ...]:
        """How often each gate decided, and how often it was on; since: `counts` then, from which to count."""
        rates = []
        now = [count - before for count, before in zip(self._counts, since or [0] * len(self._counts), strict=True)]
        for i, gate in enumerate(self.infos):
            asked, on = now[2 * i], now[2 * i + 1]
            rates.append(GateRate(gate.name, gate.kind, asked, on / asked if asked else None))
        if reset:
            self._counts[:] = [0] * len(self._counts)
        return tuple(rates)

    def _each(self, number: int, on: bool | Decisions) -> Decisions:
        """The gate's decisions, one by one."""
        gate, given = self.infos[number], np.asarray(on, bool)
        if given.shape not in ((), (gate.decisions,)):
            raise UsageError("wrong number of decisions", where=gate.name, expected=gate.decisions, got=given.shape)
        return np.broadcast_to(given, gate.decisions)

    def _number(self, name: str) -> int:
        names = [gate.name for gate in self.infos]
        if name not in names:
            raise UsageError(f"no gate {name!r}", expected=", ".join(names) or "none: the model has no gates", got=name)
        return names.index(name)
