"""Program => model.c: the function that runs the model, the one that prepares its weights, and sizes to check."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np

from evo_tvm.executor.peak import Peak
from evo_tvm.executor.program import Call, Copy, FillBorder, Pointer, Prepare, Program
from evo_tvm.spec import TensorSpec

_FILL_BORDER = """\
/* Fills the border around each of `planes` images with a byte; the pixels inside are left alone. */
static void fill_border(uint8_t* at, int byte, int planes, int rows, int columns, int pixel, int top, int left,
                        int bottom, int right) {
  for (int p = 0; p < planes; ++p, at += (size_t)rows * columns * pixel) {
    memset(at, byte, (size_t)top * columns * pixel);
    memset(at + (size_t)(rows - bottom) * columns * pixel, byte, (size_t)bottom * columns * pixel);
    for (int y = top; y < rows - bottom; ++y) {
      uint8_t* row = at + (size_t)y * columns * pixel;
      memset(row, byte, (size_t)left * pixel);
      memset(row + (size_t)(columns - right) * pixel, byte, (size_t)right * pixel);
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
    peaks: Sequence[Peak] = (),
) -> str:
    """The text of model.c, against executor/abi.h. peaks: what the model can measure the CPU with."""
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
        *(line for peak in peaks for line in _peak(peak)),
        *([_FILL_BORDER] if any(isinstance(s, FillBorder) for s in program.steps) else []),
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
    name = "evo_model_peak" if peak.dtype == "float32" else "evo_model_integer_peak"
    yield f"extern int32_t {peak.symbol}(void*, void*, void*);"
    yield f"int64_t {name}(void) {{"
    yield "  ".join(["", *(f"_Alignas(kAlign) uint8_t {n}[{s}];" for n, s in zip("abc", peak.sizes, strict=True))])
    yield "  memset(a, 63, sizeof a), memset(b, 63, sizeof b); /* as float32: 0.747 */"
    yield f"  {peak.symbol}(a, b, c);"
    yield from (f"  return {peak.operations};", "}", "")


def _step(step: Call | FillBorder | Copy) -> Iterator[str]:
    if isinstance(step, Call):
        arguments = ", ".join(f"(void*)({_pointer(p)})" for p in step.arguments)
        yield f"  if ((code = {step.symbol}({arguments}))) return code;"
        yield f"  if (ticks) ticks[{step.kernel + 1}] = evo_now_ns();"
    elif isinstance(step, FillBorder):
        numbers = (step.byte, step.planes, step.rows, step.columns, step.pixel_bytes, *step.halo)
        yield f"  fill_border({_pointer(step.at)}, {', '.join(map(str, numbers))});"
    else:
        yield f"  memcpy({_pointer(step.target)}, {_pointer(step.source)}, {step.size_bytes});"


def _pointer(p: Pointer) -> str:
    if p.space in ("input", "output"):
        return f"(uint8_t*){p.space}s[{p.index}] + {p.offset}"
    return f"{p.space} + {p.offset}"
