"""What gates learn from while a model is in use: when to look at an input, what to keep of it, in how much memory."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from evo_tvm.errors import UsageError
from evo_tvm.gates.network import Array

MEGABYTE = 1_000_000
#: The part of the memory that inputs may take which wait to be looked at.
_WAITING_SHARE = 0.25


class Looks(Protocol):
    """Looks at one input: what the sites see, and what the model gives; arrays of the same shapes every time."""

    def __call__(self, inputs: Mapping[str, Array], label: int) -> Mapping[str, Array]:
        """One row for the reservoir."""
        ...


class GateScores(Protocol):
    """What the log of a gate says of a run, as `Module.gate_log` gives it."""

    @property
    def name(self) -> str: ...
    @property
    def scores(self) -> Array: ...


class Reservoir:
    """A uniform sample of all rows that were ever added, in a memory that does not grow.

    Vitter, "Random Sampling with a Reservoir" (1985), algorithm R. Safe to use from several threads.
    """

    def __init__(self, like: Mapping[str, Array], memory_bytes: float, seed: int = 0) -> None:
        """like: a row, whose shapes and dtypes all have. Raises UsageError: not even one row fits."""
        row_bytes = sum(max(np.asarray(value).nbytes, 1) for value in like.values())
        self.capacity = int(memory_bytes // row_bytes)
        if self.capacity < 1:
            raise UsageError(
                "the memory is too small for one sample",
                where="memory",
                expected=f"at least {math.ceil(row_bytes) / MEGABYTE:g} MB",
                got=f"{memory_bytes / MEGABYTE:g} MB",
            )
        self._rows = {k: np.empty((self.capacity, *np.shape(v)), np.asarray(v).dtype) for k, v in like.items()}
        self._rng, self._lock = np.random.default_rng(seed), threading.Lock()
        self.seen = 0

    @property
    def nbytes(self) -> int:
        """All that it ever takes."""
        return sum(array.nbytes for array in self._rows.values())

    def __len__(self) -> int:
        return min(self.seen, self.capacity)

    def add(self, row: Mapping[str, Array]) -> None:
        """Keeps the row in place of another, or not at all, as chance has it."""
        with self._lock:
            place = self.seen if self.seen < self.capacity else int(self._rng.integers(self.seen + 1))
            self.seen += 1
            if place < self.capacity:
                for name, array in self._rows.items():
                    array[place] = row[name]

    def take(self, names: Sequence[str], most: int | None = None) -> tuple[Array, ...]:
        """Copies of these columns, of all rows or of the first so many: one consistent state."""
        with self._lock:
            count = len(self) if most is None else min(len(self), most)
            return tuple(self._rows[name][:count].copy() for name in names)


class Sampler:
    """Chooses inputs that are worth a look, and looks at them later, so that inference does not wait.

    An inference thread offers its inputs; `look`, or a thread that calls `run`, does the work. What waits and what was
    seen stay within `memory_mb` together.
    """

    def __init__(
        self,
        looks: Looks,
        like: Mapping[str, Array],
        memory_mb: float = 64,
        every: int | None = 10,
        unsure: float | None = None,
        idle_s: float = 0.0,
        seed: int = 0,
    ) -> None:
        """like: inputs by name, whose shapes and dtypes all have.

        every: look at every n-th input. unsure: and where the score of a gate is as near to its threshold as this.
        idle_s: `run` looks only when nothing was offered for so long. Raises UsageError: a value that cannot be.
        """
        if every is not None and every < 1:
            raise UsageError("every how many inputs to look", where="every", expected="at least 1", got=every)
        if memory_mb <= 0:
            raise UsageError("the sampler needs memory", where="memory_mb", expected="above 0", got=memory_mb)
        self._looks, self._every, self._unsure, self._idle_s = looks, every, unsure, idle_s
        self._input_bytes = sum(np.asarray(value).nbytes for value in like.values())
        most = int(memory_mb * MEGABYTE * _WAITING_SHARE // max(self._input_bytes, 1))
        if most < 1:
            raise UsageError(
                "the memory is too small for one input",
                where="memory_mb",
                expected=f"at least {self._input_bytes / MEGABYTE / _WAITING_SHARE:.3g}",
                got=memory_mb,
            )
        self._waiting: deque[tuple[dict[str, Array], int]] = deque(maxlen=most)
        self._lock, self._looking = threading.Lock(), threading.Lock()
        self._memory_bytes, self._seed = memory_mb * MEGABYTE, seed
        self._offered, self._last = 0, -math.inf
        self.reservoir: Reservoir | None = None

    @property
    def nbytes(self) -> int:
        """What the inputs that wait and the reservoir take now."""
        return len(self._waiting) * self._input_bytes + (self.reservoir.nbytes if self.reservoir is not None else 0)

    def offer(
        self,
        inputs: Mapping[str, Array],
        log: Sequence[GateScores] = (),
        thresholds: Mapping[str, float] | None = None,
        label: int = -1,
    ) -> bool:
        """Keeps a copy of the inputs if they are worth a look, and says so; the oldest that waits makes room.

        log, thresholds: of the run, as `Module.gate_log` and `Module.thresholds` give them. label: -1 where unknown.
        """
        with self._lock:
            self._last = time.monotonic()
            self._offered += 1
            due = self._every is not None and self._offered % self._every == 0
            if not (due or self._near(log, thresholds or {})):
                return False
            self._waiting.append(({name: np.array(value) for name, value in inputs.items()}, label))
            return True

    def look(self) -> bool:
        """Looks at the input that waits longest; False where none does."""
        with self._looking:
            with self._lock:
                if not self._waiting:
                    return False
                inputs, label = self._waiting.popleft()
            row = self._looks(inputs, label)
            if self.reservoir is None:
                waiting = (self._waiting.maxlen or 0) * self._input_bytes
                self.reservoir = Reservoir(row, self._memory_bytes - waiting, self._seed)
            self.reservoir.add(row)
            return True

    def run(self, stopped: Callable[[], bool], pause_s: float = 0.005) -> None:
        """Looks whenever nothing was offered for `idle_s`, until `stopped` says so: for a thread of its own."""
        while not stopped():
            idle = time.monotonic() - self._last >= self._idle_s
            if not (idle and self.look()):
                time.sleep(pause_s)

    def _near(self, log: Sequence[GateScores], thresholds: Mapping[str, float]) -> bool:
        if self._unsure is None:
            return False
        distances: list[Any] = [np.abs(np.asarray(g.scores) - thresholds[g.name]) for g in log if g.name in thresholds]
        return any(bool((distance <= self._unsure).any()) for distance in distances)  # never where it was not asked
