"""Program => model.c: the function that runs the model, the one that prepares its weights, and sizes to check."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np

from evo_tvm.executor.peak import Peak
from evo_tvm.executor.program import Call, ClearBorder, Copy, Pointer, Prepare, Program
from evo_tvm.spec import TensorSpec

_CLEAR_BORDER = """\
/* Writes zeros around each of `planes` images; the pixels inside are left alone. */
static void clear_border(uint8_t* at, int planes, int rows, int columns, int pixel, int top, int left, int bottom,
                         int right) {
  for (int p = 0; p < planes; ++p, at += (size_t)rows * columns * pixel) {
    memset(at, 0, (size_t)top * columns * pixel);
    memset(at + (size_t)(rows - bottom) * columns * pixel, 0, (size_t)bottom * columns * pixel);
    for (int y = top; y < rows - bottom; ++y) {
      uint8_t* row = at + (size_t)y * columns * pixel;
      memset(row, 0, (size_t)left * pixel);
      memset(row + (size_t)(columns - right) * pixel, 0, (size_t)right * pixel);
    }
  }
}
"""


def emit_c(
    program: Program,
    triple: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    kernels: int,
    peak: Peak | None = None,
) -> str:
    """The text of model.c, against executor/abi.h. peak: where given, the model can measure the CPU with it."""
    sizes = [s.size * np.dtype(s.dtype).itemsize for s in (*inputs, *outputs)]
    calls = [s for s in program.steps if isinstance(s, Call)]
    symbols = {c.symbol: len(c.arguments) for c in calls}
    lines = [
        '#include "abi.h"',
        "#include <string.h>",
        "",
        *(f"extern int32_t {s}({', '.join(['void*'] * n)});" for s, n in symbols.items()),
        "",
        f"const char* const evo_target = {json.dumps(triple)};",
        f"const int32_t evo_num_inputs = {len(inputs)}, evo_num_outputs = {len(outputs)}, evo_num_kernels = {kernels};",
        f"const uint64_t evo_tensor_bytes[] = {{{', '.join(map(str, sizes)) or '0'}}};",
        f"const uint64_t evo_weights_bytes = {len(program.weights)}, evo_prepared_bytes = {program.prepared_bytes};",
        f"const uint64_t evo_arena_bytes = {program.arena_bytes};",
        "",
        *_prepare(program.preparations),
        *(_peak(peak) if peak is not None else ()),
        *([_CLEAR_BORDER] if any(isinstance(s, ClearBorder) for s in program.steps) else []),
        "int32_t evo_model_main(void* const* inputs, void* const* outputs, const uint8_t* weights,",
        "                       const uint8_t* prepared, uint8_t* arena, uint64_t* ticks) {",
        "  int32_t code;",
        "  (void)inputs, (void)outputs, (void)weights, (void)prepared, (void)arena, (void)code;",
        "  if (ticks) ticks[0] = evo_now_ns();",
        *(line for step in program.steps for line in _step(step)),
        "  return 0;",
        "}",
        "",
    ]
    return "\n".join(lines)


def _prepare(preparations: Sequence[Prepare]) -> Iterator[str]:
    matrices = {matrix: f"matrix_{i}" for i, matrix in enumerate(dict.fromkeys(p.how.matrix for p in preparations))}
    for matrix, name in matrices.items():
        yield f"static const double {name}[] = {{{', '.join(repr(e) for row in matrix for e in row)}}};"
    yield "int32_t evo_model_prepare(const uint8_t* weights, uint8_t* prepared) {"
    yield "  int32_t code;"
    yield "  (void)weights, (void)prepared, (void)code;"
    for p in preparations:
        how = p.how
        numbers = (len(how.matrix), how.blocks, how.channels, how.lanes, *how.strides)
        winograd = f"&(Winograd){{{matrices[how.matrix]}, {', '.join(map(str, numbers))}}}"
        arguments = f"(const float*)({_pointer(p.source)}), (float*)({_pointer(p.target)}), {winograd}"
        yield f"  if ((code = evo_winograd_weights({arguments}))) return code;"
    yield from ("  return 0;", "}", "")


def _peak(peak: Peak) -> Iterator[str]:
    yield f"extern int32_t {peak.symbol}(void*, void*, void*);"
    yield "int64_t evo_model_peak(void) {"
    yield f"  _Alignas(kAlign) float a[{peak.lanes}], b[{peak.lanes}], c[{peak.rows * peak.lanes}];"
    yield f"  for (int i = 0; i < {peak.lanes}; ++i) a[i] = 1.5f, b[i] = 0.5f;"
    yield f"  {peak.symbol}(a, b, c);"
    yield from (f"  return {peak.flops};", "}", "")


def _step(step: Call | ClearBorder | Copy) -> Iterator[str]:
    if isinstance(step, Call):
        arguments = ", ".join(f"(void*)({_pointer(p)})" for p in step.arguments)
        yield f"  if ((code = {step.symbol}({arguments}))) return code;"
        yield f"  if (ticks) ticks[{step.kernel + 1}] = evo_now_ns();"
    elif isinstance(step, ClearBorder):
        numbers = (step.planes, step.rows, step.columns, step.pixel_bytes, *step.halo)
        yield f"  clear_border({_pointer(step.at)}, {', '.join(map(str, numbers))});"
    else:
        yield f"  memcpy({_pointer(step.target)}, {_pointer(step.source)}, {step.size_bytes});"


def _pointer(p: Pointer) -> str:
    if p.space in ("input", "output"):
        return f"(uint8_t*){p.space}s[{p.index}] + {p.offset}"
    return f"{p.space} + {p.offset}"
