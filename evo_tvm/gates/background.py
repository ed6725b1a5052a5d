"""Trains hooks in a thread of its own while the model is in use."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from evo_tvm.errors import InputError
from evo_tvm.gates.hook import Hook
from evo_tvm.gates.hooks_file import save_hooks
from evo_tvm.gates.sampler import Sampler
from evo_tvm.gates.sites import Site
from evo_tvm.gates.teach import Trainer, teach

#: The thread's niceness, where the system has one for each thread: whatever else wants the core comes first.
NICENESS = 15
_PAUSE_S = 0.05
#: Between steps of training, Python's lock is free for so many times as long as a step took, within these limits: an
#: inference asks for it twice.
_STEP_REST, _LEAST_REST_S, _MOST_REST_S = 3.0, 0.001, 0.05


class Background:
    """Trains hooks on what a sampler keeps, round after round, and saves them after each: `with Background(...) as b`.

    `b.hooks` are those of the last round, in the order of `sites`; before it, None. A round is an epoch for each hook,
    and begins when there are samples that the last one did not have.
    """

    def __init__(
        self,
        sampler: Sampler,
        sites: Sequence[Site],
        hidden: Mapping[Site, int],
        trainer: Trainer,
        path: str | os.PathLike[str] | None = None,
        seed: int = 0,
        begin: Sequence[Hook] | None = None,
    ) -> None:
        """path: the `.hooks` file to save to; None: none is written. begin: hooks to go on from, one for each site."""
        self.hooks: tuple[Hook, ...] | None = None
        self._begin = tuple(begin) if begin is not None else None
        self.rounds = 0
        self.error: BaseException | None = None
        self._sampler, self._sites, self._hidden, self._trainer = sampler, tuple(sites), dict(hidden), trainer
        self._path, self._seed, self._stop = path, seed, threading.Event()
        self._step_began = 0.0
        self._thread = threading.Thread(target=self._run, name="evo_tvm training", daemon=True)

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the round that is going on; what it learnt until then is not kept. Raises what ended the thread."""
        self._stop.set()
        self._thread.join()
        if self.error is not None and error is None:
            raise self.error

    def _run(self) -> None:
        with suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            seen = 0
            while not self._stop.is_set():
                rows = self._sampler.reservoir
                if rows is None or rows.seen == seen or not self._round():
                    self._stop.wait(_PAUSE_S)
                else:
                    seen = rows.seen
        except BaseException as error:
            self.error = error

    def _rest(self) -> bool:
        """Between two steps: leaves Python to other threads for a while; whether to stop."""
        took = time.perf_counter() - self._step_began
        stop = self._stop.wait(min(max(_STEP_REST * took, _LEAST_REST_S), _MOST_REST_S))
        self._step_began = time.perf_counter()
        return stop

    def _round(self) -> bool:
        """False: there are not yet enough samples."""
        rows = self._sampler.reservoir
        assert rows is not None
        known = self.hooks or self._begin
        begin = dict(zip(self._sites, known, strict=True)) if known is not None else None
        self._step_began = time.perf_counter()
        arguments: dict[str, Any] = {"begin": begin, "stopped": self._rest}
        try:
            hooks = teach(
                rows, self._sites, self._hidden, self._trainer, 1, self._seed + self.rounds, _silent, **arguments
            )
        except InputError:
            return False
        if not self._stop.is_set():
            self.hooks, self.rounds = hooks, self.rounds + 1
            if self._path is not None:
                save_hooks(self._path, hooks, {"round": self.rounds, "samples": rows.seen})
        return True


def _silent(text: str, done: int, total: int) -> None:
    """Nobody watches the thread."""
