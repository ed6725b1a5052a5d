"""The process that times kernels: a crash or a hang is its own. It imports no compiler.

It reads one request a line and answers each with a line, both JSON. A request has `kernels` (the fields of
`OneKernel`), `threads`, `evict_bytes`, `min_rounds`, `max_rounds`, `seconds`, `reference` (a file) and `tolerance`. All
kernels run in turn, round after round, so that what disturbs the machine hits all alike. Weights are cold, as in a
whole model: each has so many copies, used in turn, that a round trip through all exceeds the last cache, or one for
each round. The input is warm: the kernel before the one that is timed has just written it. A sample during which
another process had the core does not count while there are others.
"""

from __future__ import annotations

import ctypes
import json
import math
import resource
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from evo_tvm.errors import EvoError
from evo_tvm.runtime.library import Library, run_error
from evo_tvm.runtime.tensors import address, aligned_bytes

_PR_SET_PDEATHSIG = 1
#: How often a call is repeated while others take the core from it.
_ATTEMPTS = 4
#: A process that has slept gets the core for longer.
_PAUSE_S = 0.003


class _Kernel:
    """A loaded library with its memory."""

    def __init__(self, library: str, weights: str, kernel: int, dtypes: Sequence[str], threads: int) -> None:
        self.kernel = kernel
        self.library = Library(Path(library).read_bytes(), library)
        data = Path(weights).read_bytes()
        self.weights = [_copy(np.frombuffer(data, np.uint8))]
        self.prepared = [aligned_bytes(self.library.prepared_bytes)]
        self.arena = aligned_bytes(self.library.arena_bytes)
        self.pool = self.library.make_pool(threads)
        self._check(self.library.prepare(self.pool, address(self.weights[0]), address(self.prepared[0])))
        count = self.library.num_inputs
        self.tensors = [aligned_bytes(size) for size in self.library.tensor_bytes]
        for i, tensor in enumerate(self.tensors[:count]):
            random = np.random.default_rng(i)
            if dtypes[i] == "float32":
                tensor.view(np.float32)[:] = random.standard_normal(tensor.size // 4, np.float32)
            else:
                tensor[:] = random.integers(0, 256, tensor.size)
        self.dtype = dtypes[-1]
        self.inputs = (ctypes.c_void_p * count)(*map(address, self.tensors[:count]))
        self.outputs = (ctypes.c_void_p * 1)(address(self.tensors[-1]))
        self.ticks = np.zeros(self.library.num_kernels + 1, np.uint64)

    @property
    def bytes(self) -> int:
        return self.weights[0].nbytes + self.prepared[0].nbytes

    def multiply(self, copies: int) -> None:
        """Has so many copies of the weights."""
        self.weights += [_copy(self.weights[0]) for _ in range(copies - 1)]
        self.prepared += [_copy(self.prepared[0]) for _ in range(copies - 1)]

    def run(self, call: int) -> float:
        """The time of the kernel, in milliseconds, in call number `call`."""
        memory = address(self.weights[call % len(self.weights)]), address(self.prepared[call % len(self.prepared)])
        ticks = self.ticks
        self._check(
            self.library.run(self.pool, self.inputs, self.outputs, *memory, address(self.arena), address(ticks))
        )
        return float(int(ticks[self.kernel + 1]) - int(ticks[self.kernel])) / 1e6

    @property
    def result(self) -> np.ndarray:
        return self.tensors[-1].view(self.dtype)

    def close(self) -> None:
        self.library.destroy_pool(self.pool)
        self.library.close()

    def _check(self, code: int) -> None:
        if code != 0:
            raise run_error(code, "kernel")


def _copy(data: np.ndarray) -> np.ndarray:
    made = aligned_bytes(data.size)
    made[: data.size] = data
    return made


def answer(request: Mapping[str, Any], here: np.ndarray) -> dict[str, Any]:
    """{"samples": milliseconds of each kernel, "errors": text of each that failed}, both by its number as text.

    here: [number of the kernel that is running, calls so far], for whoever finds this process dead or hanging.
    """
    errors: dict[int, str] = {}
    kernels: dict[int, _Kernel] = {}
    try:
        for i, (library, weights, kernel, dtypes) in enumerate(request["kernels"]):
            here[:] = i, here[1] + 1
            try:
                kernels[i] = _Kernel(library, weights, kernel, dtypes, request["threads"])
                kernels[i].run(0)
                _compare(kernels[i].result, Path(request["reference"]), request["tolerance"])
            except EvoError as error:
                errors[i] = str(error)
            except Exception as error:
                errors[i] = f"{type(error).__name__}: {error}"
        running = {i: kernel for i, kernel in kernels.items() if i not in errors}
        whole = max(1, sum(kernel.bytes for kernel in running.values()))
        for kernel in running.values():
            kernel.multiply(min(request["max_rounds"], math.ceil(request["evict_bytes"] / whole)))
        np.ones(request["evict_bytes"] // 8).sum()  # the copies were just written: out of the cache with them
        samples: dict[int, list[float]] = {i: [] for i in running}
        disturbed: dict[int, list[float]] = {i: [] for i in running}
        begin = time.perf_counter()
        for call in range(1, request["max_rounds"] + 1):
            for i, kernel in running.items():
                for attempt in range(_ATTEMPTS):
                    time.sleep(attempt * _PAUSE_S)
                    here[:] = i, here[1] + 1
                    before = _preempted()
                    sample = kernel.run(call + attempt)
                    if _preempted() == before:
                        samples[i].append(sample)
                        break
                    disturbed[i].append(sample)
            if call >= request["min_rounds"] and time.perf_counter() - begin >= request["seconds"]:
                break
        return {"samples": {i: samples[i] or disturbed[i] for i in running}, "errors": errors}
    finally:
        for kernel in kernels.values():
            kernel.close()


def _preempted() -> int:
    """How often another process took a core from this one."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _compare(result: np.ndarray, reference: Path, tolerance: float) -> None:
    """Raises EvoError: the result is not that in the file. Where there is no file, it is made."""
    if not reference.exists():
        np.save(reference, result)
        return
    expected = np.load(reference).astype(np.float64)
    worst = float(np.max(np.abs(result - expected)) / max(float(np.max(np.abs(expected))), 1e-30))
    if not worst <= tolerance:
        raise EvoError(f"its result is wrong by {worst:.2g} of the largest value")


def main() -> None:
    """Serves until standard input ends. The argument is a file that holds `here`."""
    with suppress(OSError, AttributeError):  # ends with its parent, even in a kernel that does not return
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    here = np.memmap(sys.argv[1], np.int64, "r+", shape=(2,))
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), here)), flush=True)


if __name__ == "__main__":
    main()
