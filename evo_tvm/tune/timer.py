"""The process that times kernels: a crash or a hang is its own. It imports no compiler.

It reads one request a line and answers each with a line, both JSON. A request is a `Batch` of
`evo_tvm.tune.build_batch`, with `threads` (numbers of them, to be timed one after the other), `evict_bytes`,
`min_rounds`, `max_rounds`, `references` (for each kernel the file that says what is correct) and `tolerances`, and
`skip`, kernels that run once, for the sake of their result. All kernels run in turn, round after
round, so that what disturbs the machine hits all alike. Weights and code are in the last cache, where the rest of a
model leaves them: before each sample the kernel runs once, and then so much memory is written as empties the caches
before the last. What a kernel reads and writes is warm: the kernel before it would have just written it. Whatever
disturbs a sample makes it longer, so the shortest one counts; a kernel is done when its two shortest samples of quick
moments agree.
"""

from __future__ import annotations

import _ctypes
import ctypes
import fcntl
import json
import math
import mmap
import os
import resource
import signal
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from evo_tvm.errors import EvoError
from evo_tvm.runtime import cpu
from evo_tvm.runtime.library import run_error
from evo_tvm.runtime.tensors import address, aligned_bytes

#: In place of a candidate's number: others measure, and this process waits for them.
WAITING = -1
_PR_SET_PDEATHSIG = 1
_MOST_ARGUMENTS = 24
#: Rounds for each sample of a quick moment that is wanted; samples that take so long together are enough.
_PATIENCE, _LONG_MS = 2, 200.0
#: For how long the fixed work runs before it is known what is usual; how many of its usual times are kept.
_REFERENCE_S, _KEPT = 2.0, 20_000
#: So many of all times may be shorter than can be.
_FREAKS = 3
#: From the shortest of them to this multiple the machine is not shared: clocks differ by 1.13, another that shares the
#: core takes 1.6. The middle of these is the usual time; so near to it the machine counts as quick.
_APART, _NEAR = 1.2, 0.05
#: How long a quick moment is waited for before each call, and for all calls of a batch together.
_WAIT_S, _WAIT_ALL_S = 0.03, 3.0
#: So near to each other the two shortest samples are when there are enough.
_AGREE = 0.02
#: Of the fixed work.
VECTOR_BYTES = 64 if "avx512f" in cpu.features() else 32 if {"avx2", "fma"} <= cpu.features() else 16


def loaded(path: str | Path) -> ctypes.CDLL:
    """A library with time_kernel.c."""
    library = ctypes.CDLL(str(path))
    library.evo_pool_create.restype = ctypes.c_void_p
    library.evo_time.argtypes = [*[ctypes.c_void_p] * 3, ctypes.c_int32, ctypes.c_void_p]
    library.evo_touch.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
    library.evo_touch.restype = None
    library.evo_touch_all.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64]
    library.evo_fixed_work.restype = ctypes.c_uint64
    library.evo_fixed_work.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    return library


class _Batch:
    """A loaded library with its memory."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.request = request
        self.library = loaded(request["library"])
        data = Path(request["data"]).read_bytes()
        self.buffers = [_filled(data, size, at) for size, at in request["buffers"]]
        self.kernels = [_Kernel(self, fields) for fields in request["kernels"]]
        self._evict = np.frombuffer(mmap.mmap(-1, request["evict_bytes"] * max(request["threads"])), np.uint8)

    def touch(self, data: np.ndarray) -> None:
        self.library.evo_touch(address(data), data.nbytes)

    def evict(self, pool: int) -> None:
        """Writes more than the caches hold that are to be empty, on each thread."""
        self.library.evo_touch_all(pool, address(self._evict), self.request["evict_bytes"])

    def make_pool(self, threads: int) -> int:
        pool = self.library.evo_pool_create(threads)
        if not pool:
            raise EvoError(f"the system cannot give {threads} threads")
        return int(pool)

    def destroy_pool(self, pool: int) -> None:
        self.library.evo_pool_destroy(ctypes.c_void_p(pool))

    def close(self) -> None:
        _ctypes.dlclose(self.library._handle)


def _filled(data: bytes, size: int, at: int) -> np.ndarray:
    made = aligned_bytes(size)
    made[:] = 0 if at < 0 else np.frombuffer(data, np.uint8, size, at)
    return made


class _Kernel:
    """One kernel of a batch, ready to be called."""

    def __init__(self, batch: _Batch, fields: Mapping[str, Any]) -> None:
        self.batch, self.number = batch, fields["candidate"]
        function = ctypes.cast(getattr(batch.library, fields["symbol"]), ctypes.c_void_p)
        pointers = [address(batch.buffers[buffer]) + offset for buffer, offset in fields["arguments"]]
        pointers += [0] * (_MOST_ARGUMENTS - len(pointers))
        self._arguments = (ctypes.c_void_p * _MOST_ARGUMENTS)(*pointers)
        self._call = (function, ctypes.byref(self._arguments))
        self._warm = [batch.buffers[buffer] for buffer in fields["warm"]]
        self._result = fields["result"]
        self._ns = (ctypes.c_uint64 * 3)()

    def run(self, pool: int) -> tuple[int, int, int]:
        """Nanoseconds: its time, and those of the fixed work right before and after it. Raises EvoError: it failed."""
        code = self.batch.library.evo_time(pool, *self._call, VECTOR_BYTES, ctypes.byref(self._ns))
        if code != 0:
            raise run_error(code, "kernel")
        return self._ns[0], self._ns[1], self._ns[2]

    def warm(self) -> None:
        """What it reads and writes is in the caches then, the input last."""
        for buffer in self._warm:
            self.batch.touch(buffer)

    def spoil(self) -> None:
        """What another kernel left where this one writes its result is gone: as floats these bytes are no numbers."""
        self.batch.buffers[self._result["buffer"]][:] = 0xFF

    @property
    def result(self) -> np.ndarray:
        """What it computed last, in logical order."""
        place, dtype = self._result, np.dtype(self._result["dtype"])
        memory = self.batch.buffers[place["buffer"]][place["offset"] :]
        strides = [stride * dtype.itemsize for stride in place["strides"]]
        seen: np.ndarray = np.ndarray(place["shape"], dtype, memory.data, 0, strides)
        if not place["channels"]:
            return seen
        n, blocks, height, width, block = seen.shape
        plain = seen.transpose(0, 1, 4, 2, 3).reshape(n, blocks * block, height, width)
        return plain[:, : place["channels"]]


class Reference:
    """Fixed work: how slow the machine is at the moment. What runs beside a virtual machine, on the other half of its
    core, slows it down for some milliseconds, again and again; a sample counts where the fixed work took its usual time
    right before and after it. As it uses the widest vectors, the clock is the same for all kernels."""

    def __init__(self) -> None:
        self._times: deque[int] = deque(maxlen=_KEPT)
        self._lowest: list[int] = []
        self._usual = 1.0
        self._left = 0.0

    def begin(self, library: ctypes.CDLL, pool: int) -> None:
        """Before each batch: what is usual is what was seen so far. A neighbour may be there for many seconds, so the
        least of all times ever seen, but for a few, says which are of a machine that is not shared."""
        until = time.perf_counter() + _REFERENCE_S
        while not self._lowest or (self._usual == 1.0 and time.perf_counter() < until):
            self.slowness(library, pool)
        times = np.array(self._times)
        self._usual = float(np.median(times[times <= self._lowest[-1] * _APART]))
        self._left = _WAIT_ALL_S

    def slowness(self, library: ctypes.CDLL, pool: int) -> float:
        """The time that the fixed work takes now, in parts of its usual time."""
        return self.seen(library.evo_fixed_work(pool, VECTOR_BYTES))

    def seen(self, spent: int) -> float:
        """This time of the fixed work, in nanoseconds, in parts of its usual time."""
        if len(self._lowest) < _FREAKS or spent < self._lowest[-1]:
            self._lowest = sorted((*self._lowest, spent))[:_FREAKS]
        if spent <= self._lowest[-1] * _APART:
            self._times.append(spent)
        return float(spent / self._usual)

    def wait(self, library: ctypes.CDLL, pool: int) -> float:
        """Waits for a quick moment, but not for long. Returns how slow it is then."""
        begin = time.perf_counter()
        until = begin + min(_WAIT_S, self._left)
        while not is_quick(slowness := self.slowness(library, pool)) and time.perf_counter() < until:
            pass
        self._left -= time.perf_counter() - begin
        return slowness


def is_quick(slowness: float) -> bool:
    """Whether the machine is as quick as usual, no less and no more."""
    return abs(slowness - 1) <= _NEAR


@contextmanager
def _held(library: ctypes.CDLL, cores: Sequence[int]) -> Iterator[None]:
    """Nobody else runs on these cores: a thread of this process's priority has each, and does nothing there."""
    go_on = ctypes.c_int32(1)

    def hold(core: int) -> None:
        os.sched_setaffinity(0, {core})
        library.evo_hold(ctypes.byref(go_on))

    threads = [threading.Thread(target=hold, args=(core,)) for core in cores]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        go_on.value = 0
        for thread in threads:
            thread.join()


class _Timing:
    """The samples of one kernel, in milliseconds: those of quick moments, and others, of which each has the slowness of
    the machine beside it."""

    def __init__(self) -> None:
        self.quick: list[float] = []
        self._slow: list[tuple[float, float]] = []
        self._preempted: list[float] = []

    def add(self, sample: float, before: float, after: float, preempted: bool) -> None:
        """before, after: the slowness of the machine."""
        if preempted:
            self._preempted.append(sample)
        elif is_quick(before) and is_quick(after):
            self.quick.append(sample)
        else:
            self._slow.append((sample, max(before, after, 1 + _NEAR)))

    def is_done(self, least: int, most: int) -> bool:
        """Whether the two shortest samples of quick moments agree, of at least `least`; there are `most`; or so many
        in all that took long."""
        first, second, *_ = (*sorted(self.quick), math.inf, math.inf)
        agree = len(self.quick) >= least and second <= first * (1 + _AGREE)
        every = [*self.quick, *self._preempted, *(sample for sample, _ in self._slow)]
        return agree or len(self.quick) >= most or (len(every) >= least and sum(every) > _LONG_MS)

    @property
    def samples(self) -> list[float]:
        """The best there are."""
        return self.quick or [sample for sample, _ in self._slow] or self._preempted

    @property
    def slowness(self) -> float:
        """Of the machine at the shortest of `samples`: 1 at a quick moment."""
        return 1.0 if self.quick else min(self._slow, default=(0.0, 1 + _NEAR))[1]


def answer(request: Mapping[str, Any], here: np.ndarray, references: defaultdict[int, Reference]) -> dict[str, Any]:
    """{"errors": text of each kernel that failed, by its candidate's number as text, "timed": for each number of
    threads {"samples": milliseconds of each kernel, "slowness": of the machine at the shortest of them}}.

    here: [number of the candidate that is running, or `WAITING`; calls so far], for whoever finds this process dead or
    hanging. references: for each number of threads.
    """
    batch = _Batch(request)
    try:
        here[1] += 1
        errors: dict[int, str] = {}
        running = [kernel for kernel in batch.kernels if _works(kernel, request, here, errors)]
        running = [kernel for kernel in running if kernel.number not in request["skip"]]
        timed = {threads: _time(batch, running, threads, here, references[threads]) for threads in request["threads"]}
        return {"errors": errors, "timed": timed}
    finally:
        batch.close()


def _works(kernel: _Kernel, request: Mapping[str, Any], here: np.ndarray, errors: dict[int, str]) -> bool:
    """Runs it once, on one thread, and looks at its result."""
    here[:] = kernel.number, here[1] + 1
    try:
        kernel.spoil()
        kernel.run(0)
        number = str(kernel.number)
        _compare(kernel.result, Path(request["references"][number]), request["tolerances"][number])
    except EvoError as error:
        errors[kernel.number] = str(error)
    except Exception as error:
        errors[kernel.number] = f"{type(error).__name__}: {error}"
    return kernel.number not in errors


def _time(
    batch: _Batch, kernels: list[_Kernel], threads: int, here: np.ndarray, reference: Reference
) -> dict[str, dict[int, Any]]:
    request = batch.request
    timings = {kernel.number: _Timing() for kernel in kernels}
    if cores := request["cores"][:threads]:
        os.sched_setaffinity(0, cores)
    pool = batch.make_pool(threads)
    with ExitStack() as stack:
        stack.callback(batch.destroy_pool, pool)
        stack.enter_context(_held(batch.library, request["cores"][threads:]))
        here[0] = WAITING  # it takes its time, once
        reference.begin(batch.library, pool)
        for call in range(request["max_rounds"] * _PATIENCE):
            turn = call % max(1, len(kernels))
            for kernel in (*kernels[turn:], *kernels[:turn]):
                timing = timings[kernel.number]
                if timing.is_done(request["min_rounds"], request["max_rounds"]):
                    continue
                here[:] = kernel.number, here[1] + 1
                kernel.run(pool)
                batch.evict(pool)
                kernel.warm()
                reference.wait(batch.library, pool)
                here[1] += 1
                switches = _preempted()
                ns, before, after = kernel.run(pool)
                timing.add(ns / 1e6, reference.seen(before), reference.seen(after), _preempted() != switches)
    return {
        "samples": {number: timing.samples for number, timing in timings.items()},
        "slowness": {number: timing.slowness for number, timing in timings.items()},
    }


def _preempted() -> int:
    """How often another process took a core from this one."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _compare(result: np.ndarray, reference: Path, tolerance: float) -> None:
    """Raises EvoError: the result is not that in the file. Where there is no file, it is made."""
    if not reference.exists():
        np.save(reference, result)
        return
    if math.isinf(tolerance):
        return
    expected = np.load(reference).astype(np.float64)
    worst = float(
        np.max(np.abs(result.reshape(expected.shape) - expected)) / max(float(np.max(np.abs(expected))), 1e-30)
    )
    if not worst <= tolerance:
        raise EvoError(f"its result is wrong by {worst:.2g} of the largest value")


def settle(priority: Mapping[str, Any]) -> None:
    """This process gets the first of the cores, and the real-time priority. priority: fields of a `Priority`."""
    if priority["cores"]:
        os.sched_setaffinity(0, priority["cores"][:1])
    if priority["realtime"]:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority["realtime"]))


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Nobody else who asks for it has the file locked meanwhile."""
    if not path:
        yield
        return
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Serves until standard input ends. Arguments: a file that holds `here`, and a `Priority` as JSON."""
    with suppress(OSError, AttributeError):  # ends with its parent, even in a kernel that does not return
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    here = np.memmap(sys.argv[1], np.int64, "r+", shape=(2,))
    priority = json.loads(sys.argv[2])
    settle(priority)
    references: defaultdict[int, Reference] = defaultdict(Reference)
    for line in sys.stdin:
        here[0] = WAITING
        with locked(priority["lock"]):
            answered = answer({**json.loads(line), "cores": priority["cores"]}, here, references)
        print(json.dumps(answered), flush=True)


if __name__ == "__main__":
    main()
