"""A small model written by hand in C, in place of what the compiler generates: these tests need no TVM.

Inputs x float32[4,16] and k int64 scalar; weights float32[16], w is twice
them, prepared at load. Outputs y = 2 x + w, positive[i] = sum(y[i]) > 0, and
tasks = k * (number of threads that the parallel loop got). Negative k makes the third kernel fail with code 7.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from evo_tvm.artifact import Artifact
from evo_tvm.executor.link import SUPPORT_SOURCES, link_library
from evo_tvm.runtime.manifest import KernelInfo, Manifest, TargetInfo
from evo_tvm.runtime.module import Module
from evo_tvm.spec import TensorSpec

MODEL_C = r"""
#include "abi.h"
typedef struct { void* sync_handle; int32_t num_task; } Env;
extern int (*__TVMBackendParallelLaunch)(int (*)(int, Env*, void*), void*, int);
const char* const evo_target = "hand-written";
const int32_t evo_num_inputs = 2, evo_num_outputs = 3, evo_num_kernels = 3;
const uint64_t evo_tensor_bytes[] = {256, 8, 256, 4, 8};
const uint64_t evo_weights_bytes = 64, evo_prepared_bytes = 64, evo_arena_bytes = 320;

typedef struct { const float *x, *w; float* y; int32_t tasks; } Closure;
static int scale_rows(int id, Env* env, void* data) {
  Closure* c = data;
  if (id == 0) c->tasks = env->num_task;
  for (int i = id; i < 4; i += env->num_task) {
    for (int j = 0; j < 16; ++j) c->y[16 * i + j] = 2 * c->x[16 * i + j] + c->w[j];
  }
  return 0;
}
int32_t evo_model_prepare(const uint8_t* weights, uint8_t* prepared) { /* what the weights are halved to in the file */
  for (int i = 0; i < 16; ++i) ((float*)prepared)[i] = 2 * ((const float*)weights)[i];
  return 0;
}
int32_t evo_model_main(void* const* in, void* const* out, const uint8_t* weights, const uint8_t* prepared,
                       uint8_t* arena, uint64_t* ticks) {
  const int64_t k = *(const int64_t*)in[1];
  (void)weights;
  if (ticks) ticks[0] = evo_now_ns();
  Closure c = {in[0], (const float*)prepared, (float*)arena, 0};
  int code = __TVMBackendParallelLaunch(scale_rows, &c, 0);
  if (code) return code;
  if (ticks) ticks[1] = evo_now_ns();
  for (int i = 0; i < 4; ++i) {
    float sum = 0;
    for (int j = 0; j < 16; ++j) sum += ((float*)out[0])[16 * i + j] = c.y[16 * i + j];
    ((uint8_t*)out[1])[i] = sum > 0;
  }
  if (ticks) ticks[2] = evo_now_ns();
  *(int64_t*)out[2] = k * c.tasks;
  if (ticks) ticks[3] = evo_now_ns();
  return k < 0 ? 7 : 0;
}
"""
WEIGHTS = np.arange(16, dtype=np.float32) - 4
#: Values of the two inputs.
X = np.random.default_rng(7).standard_normal((4, 16)).astype(np.float32)
K = np.array(3)

Expected = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The hand-written model as a shared library for this machine."""
    folder = tmp_path_factory.mktemp("fake_model")
    source, out = folder / "model.c", folder / "model.so"
    source.write_text(MODEL_C)
    link_library([], [source, *SUPPORT_SOURCES], out, f"{os.uname().machine}-linux-gnu")
    return out.read_bytes()


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    return Manifest(
        evo_tvm="0.1.0",
        tvm="none",
        target=TargetInfo("host", f"{os.uname().machine}-linux-gnu", "generic", ()),
        num_threads=1,
        inputs=(TensorSpec("x", (4, 16), "float32"), TensorSpec("k", (), "int64")),
        outputs=(
            TensorSpec("y", (4, 16), "float32"),
            TensorSpec("positive", (4,), "bool"),
            TensorSpec("tasks", (), "int64"),
        ),
        arena_bytes=320,
        prepared_bytes=64,
        kernels=(
            KernelInfo("scale_rows", "mul_add", "row loop", layers=("Mul_0", "Add_1"), flops=128, bytes=576),
            KernelInfo("positive", "reduce", "scalar"),
            KernelInfo("count", "mul", "scalar"),
        ),
        plan=({"workload": "mul_add", "algorithm": "row loop"},),
    )


@pytest.fixture
def artifact(manifest: Manifest, library: bytes) -> Artifact:
    return Artifact(manifest, library, (WEIGHTS / 2).tobytes())


@pytest.fixture
def mod(artifact: Artifact) -> Iterator[Module]:
    with artifact.module() as module:
        yield module


@pytest.fixture
def evo_file(artifact: Artifact, tmp_path: Path) -> Path:
    path = tmp_path / "model.evo"
    artifact.save(path)
    return path


@pytest.fixture(scope="session")
def expected() -> Expected:
    """The numbers that output y must have, for an input x."""
    return lambda x: (2 * x.astype(np.float64) + WEIGHTS).astype(np.float32)
