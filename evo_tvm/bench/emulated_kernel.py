"""One kernel of a model as a program of its own for an emulated CPU: run, and its instructions counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tvm import tirx

from evo_tvm.bench.emulator import Counted, count, emulator
from evo_tvm.executor.codegen import build_object
from evo_tvm.programs import find_program, run_program
from evo_tvm.target import Target

_MAIN = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef int (*Lambda)(int, void*, void*);
static int launch(Lambda lambda, void* data, int tasks) {{
  struct {{ void* sync_handle; int32_t num_task; }} env = {{NULL, 1}};
  (void)tasks;
  return lambda(0, &env, data);
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
static const size_t bytes[] = {{{bytes}}};
enum {{ kCount = sizeof bytes / sizeof *bytes }};
/* main FILE RUNS: reads the operands one after the other, calls the kernel, writes its result behind them. */
int main(int argc, char** argv) {{
  void* p[kCount];
  FILE* file = argc == 3 ? fopen(argv[1], "r+b") : NULL;
  if (file == NULL) return 2;
  for (int i = 0; i < kCount; ++i) {{
    p[i] = allocate(0, 0, bytes[i], 0, 0);
    if (i < kCount - 1 ? fread(p[i], 1, bytes[i], file) != bytes[i] : memset(p[i], 0xff, bytes[i]) == NULL) return 3;
  }}
  for (int run = atoi(argv[2]); run > 0; --run) {{
    if (kernel({arguments}) != 0) return 4;
  }}
  fseek(file, 0, SEEK_END);
  return fwrite(p[kCount - 1], 1, bytes[kCount - 1], file) == bytes[kCount - 1] && fclose(file) == 0 ? 0 : 5;
}}
"""


class EmulatedKernel:
    """A scheduled function, compiled for `target` into `folder`, which must stay; its last parameter is written.

    Raises EvoError: no emulator or no cross compiler is installed, or one of them fails.
    """

    def __init__(self, func: tirx.PrimFunc, target: Target, folder: Path) -> None:
        self.target, self.folder = target, folder
        self.shapes = [tuple(int(e) for e in p.ty.shape) for p in func.params]
        self.dtypes = [np.dtype(str(p.ty.dtype)) for p in func.params]
        sizes = [int(np.prod(s)) * d.itemsize for s, d in zip(self.shapes, self.dtypes, strict=True)]
        count = range(len(sizes))
        text = _MAIN.format(
            types=", ".join("void*" for _ in count),
            arguments=", ".join(f"p[{i}]" for i in count),
            bytes=", ".join(map(str, sizes)),
        )
        build_object(func, "kernel", target.tvm(), str(folder / "kernel.o"))
        (folder / "main.c").write_text(text)
        compiler = find_program(f"{target.triple}-gcc", f"g++-{target.triple}")
        files = [str(folder / name) for name in ("main.c", "kernel.o")]
        run_program([compiler, "-O1", "-static", *files, "-lm", "-o", self._main])

    @property
    def _main(self) -> str:
        return str(self.folder / "main")

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        """The kernel's result, which is all ones in every bit before."""
        run_program([*emulator(self.target), *self._program(inputs, 1)])
        result = np.frombuffer(self._file.read_bytes()[sum(a.nbytes for a in inputs) :], self.dtypes[-1])
        return result.reshape(self.shapes[-1])

    def count(self, *inputs: np.ndarray) -> Counted:
        """What a call executes: that of the program, less that of one without a call."""
        none, one = (count(self.target, self._program(inputs, runs), self.folder) for runs in (0, 1))
        return one - none

    @property
    def _file(self) -> Path:
        return self.folder / "operands"

    def _program(self, inputs: Sequence[np.ndarray], runs: int) -> list[str]:
        """The program and its arguments; its file is written."""
        for array, shape, dtype in zip(inputs, self.shapes[:-1], self.dtypes[:-1], strict=True):
            assert (array.shape, array.dtype) == (shape, dtype), (array.shape, shape, array.dtype, dtype)
        self._file.write_bytes(b"".join(np.ascontiguousarray(array).tobytes() for array in inputs))
        return [self._main, str(self._file), str(runs)]
