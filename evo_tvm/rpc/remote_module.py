"""A compiled model on a board: the face of `runtime.Module`, with the work done at the other end of a session."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np

from evo_tvm.artifact import Artifact
from evo_tvm.errors import ArtifactError, BoardError, InputError, UsageError
from evo_tvm.rpc.session import Board, Session, Step
from evo_tvm.runtime import container, cpu
from evo_tvm.runtime.limits import Limits
from evo_tvm.runtime.manifest import Manifest
from evo_tvm.runtime.tensors import Array, InputSlot, OutputSlot, arbitrary_values, in_order
from evo_tvm.runtime.timing import Benchmark, Profile, Provenance, profile_of
from evo_tvm.spec import TensorSpec

#: Runs are asked for in batches that take about this long, so that a board that hangs is noticed.
_BATCH_S, _MOST_RUNS = 0.25, 4096
#: Memory that a profile reads to measure it: more than the caches of a board hold.
_MEASURED_BYTES = 64 << 20


def check_board(manifest: Manifest, board: Board, where: object) -> None:
    """Raises ArtifactError: the board's CPU cannot run what the manifest was compiled for."""
    target = manifest.target
    missing = [cpu.named(feature) for feature in target.features if feature not in board.features]
    if target.arch != board.arch:
        what = f"compiled for {target.arch} ({target.name}), and the board is {board.arch}"
    elif missing:
        what = f"compiled for {target.name}, and the board ({board.cpu}) lacks {', '.join(missing)}"
    else:
        return
    raise ArtifactError(what, where=where, hint="Compile the model for the board: evo-tvm targets lists what there is.")


class RemoteModule:
    """A model loaded on the board of `session`, ready to run; it takes the session over and closes it.

    `model`: an .evo file, or an Artifact. The board gets its library and weights unless it has them from before. A
    session holds one model at a time. Calls take and give what those of `runtime.Module` do; all times are taken on
    the board, so the network is not in them.

    Raises ArtifactError: compiled for another CPU than the board's, or by an evo_tvm without RPC. BoardError: see
    `Session`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Artifact,
        session: Session,
        num_threads: int | None = None,
        progress: Step | None = None,
    ) -> None:
        self._session = session
        self._where = "model" if isinstance(model, Artifact) else os.fspath(model)
        try:
            artifact = model if isinstance(model, Artifact) else Artifact.open(model)
            self.manifest = artifact.manifest
            check_board(self.manifest, session.board, self._where)
            self.num_threads = self.manifest.num_threads if num_threads is None else num_threads
            if not 1 <= self.num_threads <= 512:
                raise UsageError(
                    "num_threads is wrong", expected="an integer from 1 to 512", got=repr(self.num_threads)
                )
            self._input_slots = [InputSlot(spec) for spec in self.manifest.inputs]
            self._output_slots = [OutputSlot(spec) for spec in self.manifest.outputs]
            self._load(artifact, progress)
        except BaseException:
            session.close()
            raise

    def _load(self, artifact: Artifact, progress: Step | None) -> None:
        session, manifest = self._session, self.manifest
        names = [f"{container.checksum(part)}{ending}" for part, ending in self._files(artifact)]
        for name, (part, _) in zip(names, self._files(artifact), strict=True):
            session.upload(name, part, progress)
        session.ask("loading the library", "load", names[0])
        sizes = [slot.size_bytes for slot in self._input_slots] + [slot.size_bytes for slot in self._output_slots]
        sizes += [len(artifact.weights), manifest.prepared_bytes, manifest.arena_bytes]
        self._tensors = [session.ask("taking memory", "allocate", (size,), "uint8") for size in sizes]
        weights, prepared, _ = self._tensors[-3:]
        path = session.ask("loading the weights", "call", "tvm.rpc.server.workpath", names[1])
        self._invoke("loading the weights", "read", path, [weights])
        self._invoke("starting its threads", "set_num_threads", self.num_threads, [])
        self._invoke("preparing the weights", "prepare", None, [weights, prepared])

    @staticmethod
    def _files(artifact: Artifact) -> tuple[tuple[bytes | memoryview, str], ...]:
        return (artifact.library, ".so"), (artifact.weights, ".bin")

    # ---- What it is ----

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """As `Module.inputs`."""
        return self.manifest.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """As `Module.outputs`."""
        return self.manifest.outputs

    @property
    def board(self) -> Board:
        """Where it runs."""
        return self._session.board

    # ---- Running it ----

    def __call__(self, *inputs: object) -> Any:
        """As `Module.__call__`."""
        outputs = self._run(inputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def run(self, inputs: Mapping[str, object]) -> dict[str, Array]:
        """As `Module.run`."""
        outputs = self._run(in_order(inputs, self.inputs))
        return {spec.name: array for spec, array in zip(self.outputs, outputs, strict=True)}

    def _run(self, inputs: Sequence[object]) -> list[Array]:
        self._write_inputs(inputs)
        self._invoke("running the model", "main", None, self._tensors)
        outputs = []
        for slot, tensor in zip(self._output_slots, self._tensors[len(self._input_slots) :], strict=False):
            array, _ = slot.make()
            data = self._session.ask("reading the outputs", "read", tensor, slot.size_bytes)
            array[...] = np.frombuffer(data, slot.dtype).reshape(array.shape)
            outputs.append(array)
        return outputs

    def _write_inputs(self, inputs: Sequence[object]) -> None:
        if len(inputs) != len(self._input_slots):
            raise InputError("wrong number of inputs", expected=len(self._input_slots), got=len(inputs))
        taken = [slot.take(value)[0] for slot, value in zip(self._input_slots, inputs, strict=True)]
        for array, tensor in zip(taken, self._tensors, strict=False):
            self._session.ask("sending the inputs", "write", tensor, array.tobytes())

    # ---- Measuring it ----

    def benchmark(
        self,
        *,
        repeat: int = 10,
        warmup: int = 3,
        min_time_s: float = 0.5,
        inputs: Mapping[str, object] | None = None,
        progress: Step | None = None,
    ) -> Benchmark:
        """As `Module.benchmark`."""
        if repeat < 1 or warmup < 0 or min_time_s < 0:
            raise UsageError("benchmark takes repeat >= 1, warmup >= 0 and min_time_s >= 0")
        self._write_inputs(self._values(inputs))
        samples: list[float] = []
        for times_ms in self._timed(2, warmup):
            samples.extend(times_ms[:, 0].tolist())
            if progress is not None:
                progress("measuring", min(len(samples), repeat), repeat)
            if len(samples) >= repeat and sum(samples) >= min_time_s * 1e3:
                break
        return Benchmark(tuple(samples), warmup, self._provenance())

    def profile(self, *, repeat: int = 20, warmup: int = 3, inputs: Mapping[str, object] | None = None) -> Profile:
        """As `Module.profile`; the limits are those of the board."""
        if repeat < 1 or warmup < 0:
            raise UsageError("profile takes repeat >= 1 and warmup >= 0")
        self._write_inputs(self._values(inputs))
        return profile_of(self.manifest.kernels, self.kernel_times(repeat, warmup), self._limits(), self._provenance())

    def kernel_times(self, repeat: int, warmup: int = 1) -> Array:
        """What each kernel takes in each run on the inputs of the last, in milliseconds: (repeat, kernels)."""
        times: list[Array] = []
        for times_ms in self._timed(len(self.manifest.kernels) + 1, warmup):
            times.append(times_ms)
            if sum(map(len, times)) >= repeat:
                break
        return np.concatenate(times)[:repeat]

    def _timed(self, columns: int, warmup: int) -> Iterator[Array]:
        """Runs in batches without end: the milliseconds between their ticks, (runs, columns - 1)."""
        rows, left = 1, warmup
        while True:
            ticks = self._call_with_result("time", self._tensors, np.zeros((rows, columns), np.uint64))
            times_ms = np.diff(ticks.astype(np.int64), axis=1) / 1e6
            if len(times_ms) > left:
                yield times_ms[left:]
            left = max(left - rows, 0)
            run_s = max(float(times_ms.sum(axis=1).min()) / 1e3, 1e-9)
            rows = int(np.clip(_BATCH_S / run_s, 1, _MOST_RUNS))

    def _limits(self) -> Limits:
        rates = self._call_with_result("limits", [], np.zeros(3), _MEASURED_BYTES)
        peak, integer_peak, memory = (float(rate) or None for rate in rates)
        return Limits(peak, memory, integer_peak)

    def _call_with_result(self, name: str, tensors: Sequence[int], result: Array, first: int | None = None) -> Array:
        """What the library's function of that name makes of `result`, its last argument."""
        tensor = self._session.ask("measuring", "allocate", result.shape, result.dtype.name)
        self._invoke("measuring", name, first, [*tensors, tensor])
        data = self._session.ask("measuring", "read", tensor, result.nbytes)
        self._session.ask("measuring", "free", tensor)
        return np.frombuffer(data, result.dtype).reshape(result.shape)

    def _values(self, inputs: Mapping[str, object] | None) -> list[object]:
        if inputs is not None:
            return in_order(inputs, self.inputs)
        return list(arbitrary_values(self.inputs))

    def _provenance(self) -> Provenance:
        manifest, board = self.manifest, self.board
        now = Provenance.now(self.num_threads, manifest.target.name, manifest.evo_tvm, manifest.tvm)
        return replace(now, cpu=board.cpu, cores=board.cores)

    # ---- What it asks for ----

    def _invoke(self, doing: str, name: str, first: int | str | None, tensors: Sequence[int]) -> None:
        try:
            self._session.ask(doing, "invoke", name, first, tensors)
        except BoardError as error:
            if f"has no function '{name}'" not in error.what:
                raise
            raise ArtifactError(
                "its library cannot be called over RPC", where=self._where, hint="Compile it again with this evo_tvm."
            ) from None

    # ---- Its end ----

    def close(self) -> None:
        """Ends the session, which gives the board back."""
        self._session.close()

    def __enter__(self) -> RemoteModule:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
