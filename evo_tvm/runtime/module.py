"""A compiled model that is loaded and runs."""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from evo_tvm.errors import ArtifactError, EvoError, InputError, UsageError
from evo_tvm.runtime import cpu
from evo_tvm.runtime.gates import Budget, Decisions, GateInfo, GateRate, GateRecord, Gates
from evo_tvm.runtime.library import Library, run_error
from evo_tvm.runtime.manifest import Manifest
from evo_tvm.runtime.tensors import (
    ALIGNMENT,
    Array,
    InputSlot,
    OutputSlot,
    address,
    aligned_bytes,
    arbitrary_values,
    in_order,
)
from evo_tvm.spec import TensorSpec

if TYPE_CHECKING:
    from evo_tvm.runtime.timing import Benchmark, Profile, Provenance


def check_cpu(manifest: Manifest, where: object) -> None:
    """Raises ArtifactError: this machine's CPU cannot run what the manifest was compiled for."""
    target = manifest.target
    if target.arch != cpu.arch():
        raise ArtifactError(
            f"compiled for {target.arch} ({target.name}), and this CPU is {cpu.arch()}",
            where=where,
            hint="Compile the model for this machine with --target host, or run it on its target.",
        )
    missing = [cpu.named(feature) for feature in target.features if feature not in cpu.features()]
    if missing:
        raise ArtifactError(
            f"compiled for {target.name}, and this CPU ({cpu.model()}) lacks {', '.join(missing)}",
            where=where,
            hint="Compile the model for this machine with --target host.",
        )


class Module:
    """A compiled model, ready to run. Get one from `evo_tvm.load` or `Artifact.module`.

    `mod(x, ...)` and `mod.run({"name": x})` take numpy arrays or anything with `__dlpack__` or `__array__`, of exactly
    the shapes and dtypes of `mod.inputs`, and give fresh numpy arrays. An input is used where it is when it is
    C-contiguous and 64-byte aligned, else it is copied. Several Python threads may call one Module: they take turns.
    """

    def __init__(
        self,
        manifest: Manifest,
        library: bytes | memoryview,
        weights: bytes | memoryview,
        num_threads: int | None = None,
        where: object = "model",
    ) -> None:
        threads: object = manifest.num_threads if num_threads is None else num_threads
        if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= 512:
            raise UsageError("num_threads is wrong", expected="an integer from 1 to 512", got=repr(num_threads))
        check_cpu(manifest, where)
        self.manifest = manifest
        self._where = where
        self._lock = threading.Lock()
        self._input_slots = [InputSlot(spec) for spec in manifest.inputs]
        self._output_slots = [OutputSlot(spec) for spec in manifest.outputs]
        self._library = Library(library, where)
        try:
            self._check_library(len(weights))
            self._weights = _aligned(weights)
            self._prepared = aligned_bytes(manifest.prepared_bytes)
            self._arena = aligned_bytes(manifest.arena_bytes)
            self._prepare(where)
            pool = self._library.make_pool(threads)
        except BaseException:
            self._library.close()
            raise
        self._pool: int | None = pool
        self._num_threads = threads
        self._memory = address(self._weights), address(self._prepared), address(self._arena)
        self._input_pointers = (ctypes.c_void_p * max(len(manifest.inputs), 1))()
        self._output_pointers = (ctypes.c_void_p * max(len(manifest.outputs), 1))()
        self._gates = Gates(self._library, manifest.gates, manifest.curve, manifest.batch) if manifest.gates else None
        self._close = weakref.finalize(self, _release, self._library, pool)
        self._close.atexit = False  # the end of the process frees all of it, and faster

    def _prepare(self, where: object) -> None:
        """Transforms the weights that are larger than the file keeps them, on all cores, whatever runs use later."""
        if not self.manifest.prepared_bytes:
            return
        try:
            pool = self._library.make_pool(cpu.usable_cores())
        except EvoError:  # a limit on threads is no reason not to load
            pool = self._library.make_pool(1)
        try:
            code = self._library.prepare(pool, address(self._weights), address(self._prepared))
        finally:
            self._library.destroy_pool(pool)
        if code != 0:
            raise run_error(code, where)

    # ---- What it is ----

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Names, shapes and dtypes of the inputs, in the order of `mod(...)`."""
        return self.manifest.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Names, shapes and dtypes of the outputs, in the order in which `mod(...)` gives them."""
        return self.manifest.outputs

    @property
    def num_threads(self) -> int:
        """How many threads a run uses, the caller's among them."""
        return self._num_threads

    def __repr__(self) -> str:
        inputs, outputs = (", ".join(map(str, specs)) for specs in (self.inputs, self.outputs))
        return f"<evo_tvm.Module ({inputs}) -> ({outputs}), {self._num_threads} threads>"

    # ---- Running it ----

    def __call__(self, *inputs: object, budget: Budget | None = None) -> Any:
        """Runs the model on `inputs`, in the order of `mod.inputs`.

        budget: of a model with gates and a curve, the most that this run should take, as a share of the time without
        gates, or a function that gives it for an `Environment`: gates work with the most accurate thresholds that the
        curve has for it. Returns a numpy array, or a list of them where the model has several outputs.
        Raises InputError: wrong count, shape or dtype; UsageError: a budget that the model cannot keep.
        """
        outputs = self._run(inputs, budget=budget)
        return outputs[0] if len(outputs) == 1 else outputs

    def run(self, inputs: Mapping[str, object]) -> dict[str, Array]:
        """Runs the model on inputs by name; returns the outputs by name. Raises InputError as `__call__`, and for a
        name that is missing or that the model does not have."""
        outputs = self._run(in_order(inputs, self.inputs))
        return {spec.name: array for spec, array in zip(self.outputs, outputs, strict=True)}

    def _run(self, inputs: Sequence[object], ticks: Any = None, budget: Budget | None = None) -> list[Array]:
        if len(inputs) != len(self._input_slots):
            raise InputError(
                "wrong number of inputs",
                expected=f"{len(self.inputs)}: {', '.join(map(str, self.inputs))}" if self.inputs else "none",
                got=len(inputs),
            )
        outputs: list[Array] = []
        taken: list[Array] = []  # kept until the run is over: an array made from DLPack may have no other owner
        with self._lock:
            if self._pool is None:
                raise UsageError("this Module is closed", where=self._where, hint="Load the model again.")
            for i, slot in enumerate(self._input_slots):
                array, self._input_pointers[i] = slot.take(inputs[i])
                taken.append(array)
            for i, output in enumerate(self._output_slots):
                array, self._output_pointers[i] = output.make()
                outputs.append(array)
            if self._gates is not None:
                self._gates.prepare(budget)
            elif budget is not None:
                self._gated()
            code = self._library.run(self._pool, self._input_pointers, self._output_pointers, *self._memory, ticks)
        if code != 0:
            raise run_error(code, self._where)
        return outputs

    # ---- Its gates ----

    @property
    def gates(self) -> tuple[GateInfo, ...]:
        """The gates, in the order in which they decide; none where the model was compiled without hooks."""
        return self.manifest.gates

    @property
    def thresholds(self) -> dict[str, float]:
        """What each gate's score must exceed in the next run; a gate that is forced has an infinity."""
        with self._lock:
            return self._gated().thresholds()

    def set_thresholds(self, thresholds: Mapping[str, float] | Sequence[float]) -> None:
        """Replaces the thresholds of gates by name, or of all, in order, from the next run on."""
        with self._lock:
            self._gated().set_thresholds(thresholds)

    def set_budget(self, budget: Budget | None) -> None:
        """The budget of runs that are given none; None: the thresholds that were set."""
        with self._lock:
            self._gated().set_budget(budget)

    def force(self, decisions: Mapping[str, bool | Decisions | None] | str | None) -> None:
        """Has gates be on (True) or off (False) whatever they see; a gate at None, or all with None, are free again.

        bool [decisions] instead: each decision of a gate, one for each block of channels or tile, so.

        "full": the model computes what it does without gates, bit for bit.
        """
        with self._lock:
            self._gated().force(decisions)

    def gate_log(self) -> tuple[GateRecord, ...]:
        """Score and decision of each gate in the last run."""
        with self._lock:
            return self._gated().log()

    def gate_rates(self, reset: bool = False) -> tuple[GateRate, ...]:
        """How often each gate was asked, and was on, since the model was loaded or the rates were last reset."""
        with self._lock:
            return self._gated().rates(reset)

    def _gated(self) -> Gates:
        """What is known of the gates; only where the lock is held, and the library open."""
        if self._pool is None:
            raise UsageError("this Module is closed", where=self._where, hint="Load the model again.")
        if self._gates is None:
            raise UsageError("this model has no gates", where=self._where, hint="Attach some with evo-tvm gate.")
        return self._gates

    # ---- Measuring it ----

    def benchmark(
        self,
        *,
        repeat: int = 10,
        warmup: int = 3,
        min_time_s: float = 0.5,
        inputs: Mapping[str, object] | None = None,
    ) -> Benchmark:
        """Times whole calls: at least `repeat` of them and at least `min_time_s` seconds, after `warmup` untimed ones.

        `inputs` by name; without them, random numbers (float) or zeros (all other dtypes).
        """
        from evo_tvm.runtime.timing import Benchmark

        if repeat < 1 or warmup < 0 or min_time_s < 0:
            raise UsageError("benchmark takes repeat >= 1, warmup >= 0 and min_time_s >= 0")
        values = self._values(inputs)
        for _ in range(warmup):
            self._run(values)
        samples: list[float] = []
        begin = before = time.perf_counter_ns()
        while len(samples) < repeat or before - begin < min_time_s * 1e9:
            self._run(values)
            after = time.perf_counter_ns()
            samples.append((after - before) / 1e6)
            before = after
        return Benchmark(tuple(samples), warmup, self._provenance())

    def profile(self, *, repeat: int = 20, warmup: int = 3, inputs: Mapping[str, object] | None = None) -> Profile:
        """The time of every kernel, over `repeat` runs after `warmup` unmeasured ones. `inputs` as for `benchmark`.

        At the first call in a process it is also measured what this CPU does at most on as many threads; the kernels
        are compared with that.
        """
        from evo_tvm.runtime.limits import measure_limits
        from evo_tvm.runtime.timing import profile_of

        if repeat < 1 or warmup < 0:
            raise UsageError("profile takes repeat >= 1 and warmup >= 0")
        values = self._values(inputs)
        before = self._gates.counts() if self._gates is not None else []
        ticks = np.zeros((warmup + repeat, len(self.manifest.kernels) + 1), np.uint64)
        for row in ticks:
            self._run(values, address(row))
        times_ms = np.diff(ticks[warmup:].astype(np.int64), axis=1) / 1e6
        with self._lock:
            if self._pool is None:
                raise UsageError("this Module is closed", where=self._where, hint="Load the model again.")
            integers = any(kernel.dtype == "int8" for kernel in self.manifest.kernels)
            limits = measure_limits(self._library, self._pool, self._num_threads, self.manifest.target, integers)
            rates = self._gates.rates(since=before) if self._gates is not None else ()
        return replace(profile_of(self.manifest.kernels, times_ms, limits, self._provenance()), gates=rates)

    def _values(self, inputs: Mapping[str, object] | None) -> list[object]:
        if inputs is not None:
            self.run(inputs)  # raises where they do not fit
            return [inputs[spec.name] for spec in self.inputs]
        return list(arbitrary_values(self.inputs))

    def _provenance(self) -> Provenance:
        from evo_tvm.runtime.timing import Provenance

        manifest = self.manifest
        return Provenance.now(self._num_threads, manifest.target.name, manifest.evo_tvm, manifest.tvm)

    # ---- Its end ----

    def close(self) -> None:
        """Ends the threads and unloads the code, once a run in progress is over. A closed Module cannot run."""
        with self._lock:
            self._pool = None
            self._close()

    def __enter__(self) -> Module:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_library(self, weights_bytes: int) -> None:
        """The manifest and the library tell the same about sizes: what does not fit would write out of bounds."""
        manifest, library = self.manifest, self._library
        tensors = (*self.inputs, *self.outputs)
        sizes = [*(slot.size_bytes for slot in self._input_slots), *(slot.size_bytes for slot in self._output_slots)]
        pairs = [
            ("the number of inputs", library.num_inputs, len(self.inputs)),
            ("the number of outputs", library.num_outputs, len(self.outputs)),
            ("the number of kernels", library.num_kernels, len(manifest.kernels)),
            ("the size of the prepared weights", library.prepared_bytes, manifest.prepared_bytes),
            ("the size of the arena", library.arena_bytes, manifest.arena_bytes),
            ("the size of the weights", library.weights_bytes, weights_bytes),
            *(
                (f"the bytes of {s.name!r}", a, b)
                for s, a, b in zip(tensors, library.tensor_bytes, sizes, strict=False)
            ),
        ]
        for what, in_library, elsewhere in pairs:
            if in_library != elsewhere:
                raise ArtifactError(
                    f"its parts do not belong together: they differ in {what}",
                    where=self._where,
                    expected=in_library,
                    got=elsewhere,
                    hint="Compile the model again.",
                )


def _aligned(data: bytes | memoryview) -> Array:
    """`data` as an array of bytes at an aligned address: itself where it already is, as in a mapped .evo file."""
    array = np.frombuffer(data, np.uint8) if len(data) else np.zeros(0, np.uint8)
    if len(data) and address(array) % ALIGNMENT == 0:
        return array
    copy = aligned_bytes(len(data))
    copy[: len(data)] = array
    return copy


def _release(library: Library, pool: int) -> None:
    library.destroy_pool(pool)
    library.close()
