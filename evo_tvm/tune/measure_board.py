"""Measures kernels on a board over RPC, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import numpy as np

from evo_tvm.artifact import Artifact
from evo_tvm.errors import ArtifactError, CompileError, EvoError
from evo_tvm.kernels.elementwise import FINITE
from evo_tvm.rpc.remote_module import RemoteModule
from evo_tvm.rpc.session import Session
from evo_tvm.runtime.tensors import arbitrary_values
from evo_tvm.target import Target
from evo_tvm.tune.forked import Forked
from evo_tvm.tune.measure import BUILD_TIMEOUT_S, TOLERANCE, Effort, Job, Result, Results, provenance
from evo_tvm.tune.one_kernel import Candidate, build_artifact
from evo_tvm.workload import Fused, Workload

#: How the name of a board begins whose times are those of an emulator.
_EMULATED = "emulated"


class BoardMeasurer:
    """Measures candidates at the other end of sessions that `connect` opens, each of which has one kernel: one that
    crashes or hangs costs its session, and is told by its error.

    The board runs each kernel in a model of its own, so its weights are as warm as they stay from one run to the next.
    Times of an emulated board are named so: they say nothing about any CPU.
    """

    def __init__(self, target: Target, connect: Callable[[], Session]) -> None:
        self.target, self._connect = target, connect
        self.metric = "time"
        self.provenance: dict[str, Any] = provenance()
        del self.provenance["timer"]  # boards have none
        self._references: dict[Fused, np.ndarray] = {}

    def __enter__(self) -> BoardMeasurer:
        """Raises BoardError: there is no board."""
        with self._connect() as session:
            board = session.board
        self.provenance |= {"cpu": board.cpu, "cores": board.cores}
        self.metric = "emulated" if board.cpu.startswith(_EMULATED) else "time"
        self.target.tvm()  # made before the forks, once
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left open."""

    def known(self, workload: Workload) -> bool:
        """Whether it is known what is correct."""
        return workload.kernel in self._references

    def run(self, propose: Callable[[], Job | None]) -> Iterator[tuple[Job, Results]]:
        """See `evo_tvm.tune.measure.Measurer.run`."""
        while (job := propose()) is not None:
            results: Results = {threads: {} for threads in job.threads}
            for number, candidate in enumerate(job.candidates):
                for threads, found in results.items():
                    found[number] = self._measure(candidate, threads, job.effort)
            yield job, results

    def _measure(self, candidate: Candidate, threads: int, effort: Effort) -> Result:
        building = Forked(lambda: build_artifact(candidate, self.target, threads))
        try:
            if not building.connection.poll(BUILD_TIMEOUT_S):
                return Result(error=f"the compiler did not return within {BUILD_TIMEOUT_S:g} s")
            artifact, kernel = building.result()
        except CompileError as error:
            return Result(error=error.what.splitlines()[0])
        finally:
            building.end()
        session = self._connect()  # where there is no board any more, that is the end
        try:
            return self._time(artifact, kernel, candidate.workload, session, effort)
        except ArtifactError:  # another board than the target: so it would be with all
            raise
        except EvoError as error:
            return Result(error=error.what)

    def _time(self, artifact: Artifact, kernel: int, workload: Workload, session: Session, effort: Effort) -> Result:
        with RemoteModule(artifact, session) as module:
            result = np.asarray(module(*arbitrary_values(module.inputs)))
            expected = self._references.setdefault(workload.kernel, result)
            scale = max(float(np.max(np.abs(expected.astype(np.float64)))), 1e-30)
            worst = float(np.max(np.abs(result.astype(np.float64) - expected))) / scale
            if FINITE.issuperset((*workload.between, *workload.epilogue)) and not worst <= TOLERANCE:
                raise EvoError(f"its result is wrong by {worst:.2g} of the largest value")
            times = module.kernel_times(effort.min_rounds)
            return Result(tuple(times[:, kernel].tolist()))
