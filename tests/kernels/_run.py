"""One scheduled PrimFunc as a function of numpy arrays: compiled, linked with a small runtime, called.

The runtime is not the executor's: each parallel loop starts its threads afresh, and memory comes from malloc.
"""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tvm import te, tirx
from tvm.ir import Expr
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV

from evo_tvm.executor.codegen import build_object
from evo_tvm.executor.link import link_library
from evo_tvm.runtime.tensors import address, aligned_empty
from evo_tvm.target import Target

# The entry is called evo_run because the linker hides what is not one of a model's exports.
_RUNTIME_C = """
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
typedef struct {{ void* sync_handle; int32_t num_task; }} Env;
typedef int (*Lambda)(int, Env*, void*);
typedef struct {{ Lambda lambda; int id; Env* env; void* data; int code; }} Task;
static int threads = 1;
static void* run(void* p) {{ Task* t = p; t->code = t->lambda(t->id, t->env, t->data); return NULL; }}
static int launch(Lambda lambda, void* data, int num_task) {{
  (void)num_task;
  Env env = {{NULL, threads}};
  Task tasks[8];
  pthread_t handles[8];
  int code = 0;
  for (int i = 0; i < threads; ++i) tasks[i] = (Task){{lambda, i, &env, data, 0}};
  for (int i = 1; i < threads; ++i) pthread_create(&handles[i], NULL, run, &tasks[i]);
  run(&tasks[0]);
  for (int i = 1; i < threads; ++i) pthread_join(handles[i], NULL);
  for (int i = 0; i < threads; ++i) code = tasks[i].code ? tasks[i].code : code;
  return code;
}}
static void* allocate(int type, int id, uint64_t bytes, int code, int bits) {{
  (void)type, (void)id, (void)code, (void)bits;
  return aligned_alloc(64, (bytes + 63) / 64 * 64);
}}
static int release(int type, int id, void* data) {{ (void)type, (void)id; free(data); return 0; }}
int (*__TVMBackendParallelLaunch)(Lambda, void*, int) = launch;
void* (*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = allocate;
int (*__TVMBackendFreeWorkspace)(int, int, void*) = release;
extern int32_t kernel({types});
int32_t evo_run(void* const* p, int32_t count) {{ threads = count; return kernel({arguments}); }}
"""


class Kernel:
    """A compiled kernel: `kernel(*inputs)` gives its output, which is all NaN before. The last parameter is written.

    threads: at most eight.
    """

    def __init__(self, func: tirx.PrimFunc, target: Target, threads: int = 1) -> None:
        self.threads = threads
        self.shapes = [tuple(int(e) for e in p.ty.shape) for p in func.params]
        self.dtypes = [str(p.ty.dtype) for p in func.params]
        count = len(self.shapes)
        text = _RUNTIME_C.format(
            types=", ".join(["void*"] * count), arguments=", ".join(f"p[{i}]" for i in range(count))
        )
        with tempfile.TemporaryDirectory(prefix="evo_tvm_test_") as folder:
            path = Path(folder)
            build_object(func, "kernel", target.tvm(), str(path / "kernel.o"))
            (path / "runtime.c").write_text(text)
            link_library([path / "kernel.o"], [path / "runtime.c"], path / "kernel.so", target.triple)
            self._library = ctypes.CDLL(str(path / "kernel.so"))

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        pointers, arrays = self._pointers(inputs)
        code = self._library.evo_run(pointers, self.threads)
        assert code == 0, f"kernel returned {code}"
        return arrays[-1]

    def best_seconds(self, *inputs: np.ndarray, repeats: int = 30) -> float:
        """The shortest of `repeats` calls."""
        pointers, _arrays = self._pointers(inputs)
        best = float("inf")
        for _ in range(repeats):
            start = time.perf_counter()
            self._library.evo_run(pointers, self.threads)
            best = min(best, time.perf_counter() - start)
        return best

    def _pointers(self, inputs: Sequence[np.ndarray]) -> tuple[ctypes.Array[ctypes.c_void_p], list[np.ndarray]]:
        arrays = [aligned_empty(s, np.dtype(d)) for s, d in zip(self.shapes, self.dtypes, strict=True)]
        for array, value in zip(arrays[:-1], inputs, strict=True):
            assert array.shape == value.shape and array.dtype == value.dtype, (array.shape, value.shape, value.dtype)
            array[...] = value
        arrays[-1][...] = np.nan
        return (ctypes.c_void_p * len(arrays))(*(address(a) for a in arrays)), arrays


def run_in_views(
    func: tirx.PrimFunc,
    schedule: Callable[[tirx.PrimFunc], Schedule],
    target: Target,
    data: np.ndarray,
    *constants: np.ndarray,
) -> np.ndarray:
    """The kernel's output where p0 and "output" are parts of larger tensors: more channels, rows and columns.

    What surrounds the input is NaN; the kernel sees both as flat buffers, as `lower_group` makes them.
    """
    seen = _part_of_larger(data.shape)
    seen[...] = data
    place = _part_of_larger(tuple(int(e) for e in func.params[-1].ty.shape))
    sch = Schedule(func)
    for name, view in (("p0", seen), ("output", place)):
        block, access = _user(sch, name)
        sch.transform_layout(block, access, _flat_index(view), assume_injective_transform=True)
    built = Kernel(schedule(sch.mod["main"]).mod["main"], target)
    whole = np.lib.stride_tricks.as_strided(seen, built.shapes[0], (4,))
    result = built(whole, *constants)
    return np.lib.stride_tricks.as_strided(result, place.shape, place.strides)


def _part_of_larger(shape: tuple[int, ...]) -> np.ndarray:
    n, blocks, h, w, b = shape
    return np.full((n, blocks + 2, h + 1, w + 3, b), np.nan, np.float32)[:, :blocks, :h, :w]


def _flat_index(view: np.ndarray) -> Callable[..., list[Expr]]:
    strides = [s // view.itemsize for s in view.strides]
    return lambda *index: [sum(i * s for i, s in zip(index, strides, strict=True))]


def _user(sch: Schedule, buffer: str) -> tuple[SBlockRV, tuple[str, int]]:
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        stmt = sch.get(block)
        for access, regions in (("read", stmt.reads), ("write", stmt.writes)):
            for i, region in enumerate(regions):
                if region.source.name == buffer:
                    return block, (access, i)
    raise AssertionError(f"no block uses {buffer}")


def relu_output(stage: te.Tensor) -> te.Tensor:
    """The stage "output" that ends every kernel: here max(x, 0)."""
    shape = tuple(int(e) for e in stage.shape)
    zero = tirx.const(0, "float32")
    return te.compute(shape, lambda *i: tirx.max(stage[i], zero), name="output")


def blocked(data: np.ndarray, block: int, border: tuple[int, int, int, int] = (0, 0, 0, 0)) -> np.ndarray:
    """NCHW -> (N, C/b, H, W, b) with a border (top, left, bottom, right) of zeros; idle lanes are zero."""
    top, left, bottom, right = border
    channels = -data.shape[1] % block
    data = np.pad(data, ((0, 0), (0, channels), (top, bottom), (left, right)))
    n, c, h, w = data.shape
    return np.ascontiguousarray(data.reshape(n, c // block, block, h, w).transpose(0, 1, 3, 4, 2))


def plain(data: np.ndarray, channels: int) -> np.ndarray:
    """(N, C/b, H, W, b) -> NCHW with `channels` channels."""
    n, blocks, h, w, block = data.shape
    return data.transpose(0, 1, 4, 2, 3).reshape(n, blocks * block, h, w)[:, :channels]


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    """max |got - wanted| / max |wanted|; NaN anywhere is an error of infinity."""
    if np.isnan(got).any():
        return float("inf")
    return float(np.abs(got - wanted).max() / max(float(np.abs(wanted).max()), 1e-30))
