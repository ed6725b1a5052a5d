"""The C code that every model is linked with: pool, scratch memory, and both doors. The "model" here is C by hand.

Its kernel does what `script`, its input, tells it: {operation, times, argument}. `report`, its output, has room for 64
numbers.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from evo_tvm.executor.link import SUPPORT_SOURCES, link_library
from evo_tvm.runtime.tensors import address, aligned_empty

TRIPLE = f"{os.uname().machine}-linux-gnu"
MODEL_C = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include "abi.h"
typedef struct { void* sync_handle; int32_t num_task; } Env;
typedef int (*Lambda)(int, Env*, void*);
/* As TVM's objects have them: weak, null, called through. */
__attribute__((weak)) int (*__TVMBackendParallelLaunch)(Lambda, void*, int);
__attribute__((weak)) int (*__TVMBackendParallelBarrier)(int, Env*);
__attribute__((weak)) void* (*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int);
__attribute__((weak)) int (*__TVMBackendFreeWorkspace)(int, int, void*);
const char* const evo_target = "hand-written";
const int32_t evo_num_inputs = 1, evo_num_outputs = 1, evo_num_kernels = 1;
const uint64_t evo_tensor_bytes[] = {24, 512}, evo_weights_bytes = 64, evo_prepared_bytes = 64, evo_arena_bytes = 128;

typedef struct { int64_t* report; int64_t argument; int64_t shared[64]; } Data;
static int inner(int id, Env* env, void* p) { ((int64_t*)p)[id] += env->num_task; return 0; }

static int count(int id, Env* env, void* p) { /* report[i] = calls as task i, report[63] = num_task */
  Data* d = p; d->report[id] += 1; if (id == 0) d->report[63] = env->num_task; return 0;
}
static int nested(int id, Env* env, void* p) { /* report[i] += num_task of a launch inside task i */
  (void)env; int64_t got[1] = {0};
  int code = __TVMBackendParallelLaunch(inner, got, 0);
  ((Data*)p)->report[id] += got[0]; return code;
}
static int barrier(int id, Env* env, void* p) { /* everyone writes, waits, then sums what all wrote */
  Data* d = p;
  for (int round = 1; round <= 50; ++round) {
    d->shared[id] = round * (id + 1);
    __TVMBackendParallelBarrier(id, env);
    int64_t sum = 0; for (int i = 0; i < env->num_task; ++i) sum += d->shared[i];
    if (sum != round * env->num_task * (env->num_task + 1) / 2) d->report[id] += 1;
    __TVMBackendParallelBarrier(id, env);
  }
  return 0;
}
static int fail(int id, Env* env, void* p) { (void)env; return id == ((Data*)p)->argument ? 42 : 0; }
static int scratch(int id, Env* env, void* p) { /* report[i] = misaligned or overlapping blocks; [32 + i] = address */
  (void)env; Data* d = p; char* block[20];
  for (int i = 0; i < 20; ++i) {
    block[i] = __TVMBackendAllocWorkspace(1, 0, (uint64_t)d->argument + 100 * i, 2, 32);
    if (!block[i] || (uintptr_t)block[i] % 64) d->report[id] += 1;
    for (int64_t k = 0; k < d->argument + 100 * i; ++k) block[i][k] = (char)(id + i);
  }
  for (int i = 19; i >= 0; --i) {
    for (int64_t k = 0; k < d->argument + 100 * i; ++k) if (block[i][k] != (char)(id + i)) d->report[id] += 1;
    __TVMBackendFreeWorkspace(1, 0, block[i]);
  }
  d->report[32 + id] = (int64_t)(uintptr_t)block[0];
  return 0;
}
static int cpus(int id, Env* env, void* p) { /* report[i] = CPUs that thread i may run on */
  (void)env; cpu_set_t set; sched_getaffinity(0, sizeof set, &set); ((Data*)p)->report[id] = CPU_COUNT(&set); return 0;
}
int32_t evo_model_prepare(const uint8_t* weights, uint8_t* prepared) { (void)weights, (void)prepared; return 0; }
int32_t evo_model_main(void* const* in, void* const* out, const uint8_t* weights, const uint8_t* prepared,
                       uint8_t* arena, uint64_t* ticks) {
  (void)weights; (void)prepared; (void)arena;
  const int64_t* script = in[0];
  static const Lambda lambdas[] = {count, nested, barrier, fail, scratch, cpus};
  Data data = {out[0], script[2], {0}};
  if (ticks) ticks[0] = evo_now_ns();
  if (script[0] == 6) { /* a kernel that fails without giving back its scratch memory */
    ((int64_t*)out[0])[0] = (int64_t)(uintptr_t)__TVMBackendAllocWorkspace(1, 0, 1000, 2, 32);
    return 9;
  }
  for (int64_t i = 0; i < script[1]; ++i) {
    int code = __TVMBackendParallelLaunch(lambdas[script[0]], &data, script[0] == 0 ? (int)script[2] : 0);
    if (code) return code;
  }
  if (ticks) ticks[1] = evo_now_ns();
  return 0;
}
"""
COUNT, NESTED, BARRIER, FAIL, SCRATCH, CPUS, LEAK = range(7)


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("support")
    (folder / "model.c").write_text(MODEL_C)
    link_library([], [folder / "model.c", *SUPPORT_SOURCES], folder / "model.so", TRIPLE)
    return folder / "model.so"


@pytest.fixture(scope="session")
def lib(path: Path) -> ctypes.CDLL:
    lib = ctypes.CDLL(str(path))
    lib.evo_pool_create.restype = ctypes.c_void_p
    lib.evo_pool_destroy.argtypes = lib.evo_pool_threads.argtypes = [ctypes.c_void_p]
    lib.evo_run.argtypes = [ctypes.c_void_p] * 6
    return lib


class Pool:
    def __init__(self, lib: ctypes.CDLL, threads: int) -> None:
        self.lib, self.handle = lib, lib.evo_pool_create(threads)
        assert self.handle and lib.evo_pool_threads(self.handle) == threads

    def run(self, operation: int, times: int = 1, argument: int = 0, expected: int = 0) -> np.ndarray:
        return run(self.lib, self.handle, operation, times, argument, expected)

    def close(self) -> None:
        self.lib.evo_pool_destroy(self.handle)


def run(
    lib: ctypes.CDLL, pool: int | None, operation: int, times: int = 1, argument: int = 0, expected: int = 0
) -> np.ndarray:
    script = aligned_empty((3,), np.dtype(np.int64))
    script[:] = operation, times, argument
    report = aligned_empty((64,), np.dtype(np.int64))
    report[:] = 0
    inputs, outputs = (ctypes.c_void_p * 1)(address(script)), (ctypes.c_void_p * 1)(address(report))
    assert lib.evo_run(pool, inputs, outputs, None, None, None, None) == expected
    return report


@pytest.fixture(params=[1, 2, 3, 8])
def pool(lib: ctypes.CDLL, request: pytest.FixtureRequest) -> Iterator[Pool]:
    made = Pool(lib, request.param)
    yield made
    made.close()


def size(pool: Pool) -> int:
    return int(pool.lib.evo_pool_threads(pool.handle))


# ---- The pool ----


def test_abi(lib: ctypes.CDLL) -> None:
    assert lib.evo_abi_version() == 3
    assert ctypes.c_int32.in_dll(lib, "evo_num_kernels").value == 1
    assert lib.evo_pool_create(0) is None and lib.evo_pool_create(-1) is None and lib.evo_pool_create(100_000) is None
    assert lib.evo_pool_threads(None) == 1
    lib.evo_pool_destroy(None)


def test_every_thread_has_its_task_in_every_launch(pool: Pool) -> None:
    report = pool.run(COUNT, times=3000)
    assert report[:63].tolist() == [3000] * size(pool) + [0] * (63 - size(pool))
    assert report[63] == size(pool)


@pytest.mark.parametrize("asked", [1, 2, 100])
def test_a_launch_may_ask_for_fewer_tasks(pool: Pool, asked: int) -> None:
    got = min(asked, size(pool))
    assert pool.run(COUNT, times=10, argument=asked)[:8].tolist() == [10] * got + [0] * (8 - got)


def test_a_pool_of_n_makes_n_minus_one_threads(lib: ctypes.CDLL) -> None:
    before = len(os.listdir("/proc/self/task"))
    pool = Pool(lib, 5)
    assert len(os.listdir("/proc/self/task")) == before + 4
    pool.close()
    assert len(os.listdir("/proc/self/task")) == before


def test_workers_that_sleep_wake_up(lib: ctypes.CDLL) -> None:
    pool = Pool(lib, 3)
    for _ in range(20):
        threading.Event().wait(0.002)
        assert pool.run(COUNT)[:3].tolist() == [1, 1, 1]
    pool.close()


def test_a_launch_inside_a_launch_is_serial(pool: Pool) -> None:
    assert pool.run(NESTED, times=100)[: size(pool)].tolist() == [100] * size(pool)


def test_no_pool_is_serial(lib: ctypes.CDLL) -> None:
    assert run(lib, None, COUNT, 5)[[0, 1, 63]].tolist() == [5, 0, 1]
    assert run(lib, None, SCRATCH, 2, 1000)[0] == 0


def test_barrier(pool: Pool) -> None:
    assert not pool.run(BARRIER, times=4).any()


@pytest.mark.parametrize("task", [0, 1])
def test_the_code_of_a_failing_task_is_returned(lib: ctypes.CDLL, task: int) -> None:
    pool = Pool(lib, 2)
    pool.run(FAIL, argument=task, expected=42)
    assert pool.run(COUNT)[:2].tolist() == [1, 1]
    pool.close()


def test_nobody_is_pinned(lib: ctypes.CDLL) -> None:
    before = os.sched_getaffinity(0)
    pool = Pool(lib, 4)
    assert pool.run(CPUS)[:4].tolist() == [len(before)] * 4
    pool.close()
    assert os.sched_getaffinity(0) == before


def test_pools_run_at_once_from_many_threads(lib: ctypes.CDLL) -> None:
    failures: list[object] = []

    def work(threads: int) -> None:
        pool = Pool(lib, threads)
        for _ in range(100):
            report = pool.run(COUNT, times=20)
            if report[:63].sum() != 20 * threads or report[63] != threads:
                failures.append(report)
        pool.close()

    workers = [threading.Thread(target=work, args=(1 + i % 3,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_runs_on_one_pool_take_turns(lib: ctypes.CDLL) -> None:
    pool = Pool(lib, 2)
    failures: list[object] = []

    def work() -> None:
        for _ in range(100):
            report = pool.run(COUNT, times=10)
            if report[:2].tolist() != [10, 10]:
                failures.append(report)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    pool.close()
    assert not failures


def test_fork(lib: ctypes.CDLL) -> None:
    pool = Pool(lib, 3)
    pool.run(COUNT)
    child = os.fork()
    if child == 0:
        fine = pool.run(COUNT, times=50)[:3].tolist() == [50] * 3
        pool.close()
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pool.run(COUNT, times=50)[:3].tolist() == [50] * 3
    pool.close()


def test_a_forked_child_may_drop_its_parents_pool(lib: ctypes.CDLL) -> None:
    pool = Pool(lib, 3)
    child = os.fork()
    if child == 0:
        pool.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    pool.close()


# ---- Scratch memory ----


def test_scratch_is_aligned_and_each_threads_own(pool: Pool) -> None:
    assert not pool.run(SCRATCH, times=20, argument=5000)[: size(pool)].any()


def test_scratch_is_kept_between_runs(pool: Pool) -> None:
    first = pool.run(SCRATCH, argument=100_000)[32 : 32 + size(pool)]
    for _ in range(3):
        np.testing.assert_array_equal(pool.run(SCRATCH, argument=100_000)[32 : 32 + size(pool)], first)


def test_scratch_of_a_kernel_that_failed_is_used_again(lib: ctypes.CDLL) -> None:
    pool = Pool(lib, 2)
    assert len({int(pool.run(LEAK, expected=9)[0]) for _ in range(50)}) == 1
    pool.close()


# ---- The packed door ----


@pytest.fixture
def packed(path: Path) -> object:
    tvm_ffi = pytest.importorskip("tvm_ffi")
    return tvm_ffi.load_module(str(path))


def _arguments(offset: int = 0) -> list[np.ndarray]:
    arrays = [aligned_empty((count + offset,), np.dtype(np.int64))[offset:] for count in (3, 64, 8, 8, 16)]
    arrays[0][:] = COUNT, 7, 0
    arrays[1][:] = 0
    return arrays


def _call(packed: object, arrays: list[np.ndarray]) -> None:
    import tvm_ffi

    packed["main"](*(tvm_ffi.from_dlpack(array) for array in arrays))  # type: ignore[index]


def test_packed_main(packed: object) -> None:
    for threads in (1, 2, 4):
        packed["set_num_threads"](threads)  # type: ignore[index]
        arrays = _arguments()
        _call(packed, arrays)
        assert arrays[1][[0, threads - 1, 63]].tolist() == [7, 7, threads]


def test_packed_main_says_what_is_wrong(packed: object) -> None:
    with pytest.raises(
        ValueError, match=r"argument 0 \(input 0\): expected data aligned to 64 bytes, got address 0x[0-9a-f]+8"
    ):
        _call(packed, _arguments(offset=1))
    arrays = _arguments()
    with pytest.raises(
        TypeError, match=r"main: expected 5 arguments \(1 inputs, 1 outputs, weights, prepared, arena\), got 3"
    ):
        _call(packed, arrays[:3])
    with pytest.raises(ValueError, match=r"argument 1 \(output 0\): expected 512 bytes, got 256"):
        _call(packed, [arrays[0], arrays[1][:32], *arrays[2:]])
    with pytest.raises(ValueError, match=r"argument 2 \(weights 0\): expected at least 64 bytes, got 0"):
        _call(packed, [*arrays[:2], arrays[2][:0], *arrays[3:]])
    with pytest.raises(ValueError, match=r"argument 1 \(output 0\): expected a contiguous tensor in CPU memory"):
        _call(packed, [arrays[0], aligned_empty((128,), np.dtype(np.int64))[::2], *arrays[2:]])
    with pytest.raises(TypeError, match=r"argument 0 \(input 0\): expected a tensor, got type index 1"):
        packed["main"](1, 2, 3, 4, 5)  # type: ignore[index]
    for wrong in (0, 513, 1.5, "2"):
        with pytest.raises(ValueError, match="set_num_threads: expected one integer from 1 to 512"):
            packed["set_num_threads"](wrong)  # type: ignore[index]


def test_packed_prepare(packed: object) -> None:
    import tvm_ffi

    weights, prepared = (tvm_ffi.from_dlpack(array) for array in _arguments()[2:4])
    packed["prepare"](weights, prepared)  # type: ignore[index]
    with pytest.raises(TypeError, match=r"prepare: expected 2 arguments \(weights, prepared\)"):
        packed["prepare"](weights)  # type: ignore[index]
    short = tvm_ffi.from_dlpack(aligned_empty((4,), np.dtype(np.int64)))
    with pytest.raises(ValueError, match=r"\(prepared 0\): expected at least 64 bytes, got 32"):
        packed["prepare"](weights, short)  # type: ignore[index]


def test_packed_main_passes_on_a_kernels_code(packed: object) -> None:
    arrays = _arguments()
    arrays[0][:] = FAIL, 1, 0
    with pytest.raises(RuntimeError, match="main: a kernel failed with code 42"):
        _call(packed, arrays)


def test_unloading_ends_the_default_pool(path: Path) -> None:
    code = (
        "import sys, os, gc, numpy as np, tvm_ffi; from evo_tvm.runtime.tensors import aligned_empty;"
        "m = tvm_ffi.load_module(sys.argv[1]); m['set_num_threads'](4);"
        "a = [aligned_empty((n,), np.dtype(np.int64)) for n in (3, 64, 8, 8, 16)]; a[0][:] = 0, 1, 0;"
        "m['main'](*map(tvm_ffi.from_dlpack, a)); print(len(os.listdir('/proc/self/task')) >= 4)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr
