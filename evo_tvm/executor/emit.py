"""Program => model.c: the function that runs the model, the one that prepares its weights, and sizes to check."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import numpy as np

from evo_tvm.executor.memory import align
from evo_tvm.executor.peak import Peak
from evo_tvm.executor.program import (
    Call,
    ClearTiles,
    Decide,
    FillBorder,
    PlannedGate,
    Pointer,
    Prepare,
    Program,
    Step,
    Tiles,
)
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
    lines = [
        *emit_head(program, triple, inputs, outputs, kernels, peaks, program.arena_bytes),
        *emit_gates(program.gates),
        "int32_t evo_model_main(void* const* inputs, void* const* outputs, const uint8_t* weights,",
        "                       const uint8_t* prepared, uint8_t* arena, uint64_t* ticks) {",
        "  int32_t code;",
        "  (void)inputs, (void)outputs, (void)weights, (void)prepared, (void)arena, (void)code;",
        "  if (ticks) ticks[0] = evo_now_ns();",
        *(_OPEN_GATES if program.gates else ()),
        *emit_steps(
            program.steps,
            lambda kernel: f"if (ticks) ticks[{kernel + 1}] = evo_now_ns();",
            "for (int i = {first}; i <= {last}; ++i) ticks[i + 1] = ticks[i];",
        ),
        "  return 0;",
        "}",
        "",
    ]
    return "\n".join(lines)


def emit_head(
    program: Program,
    triple: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    kernels: int,
    peaks: Sequence[Peak],
    arena_bytes: int,
) -> Iterator[str]:
    """All of model.c that does not depend on the order of the steps."""
    sizes = [s.size * np.dtype(s.dtype).itemsize for s in (*inputs, *outputs)]
    calls = [s for s in program.steps if isinstance(s, Call)]
    rectangles = [r for call in calls if call.tiles is not None for r in call.tiles.rectangles]
    symbols = {c.symbol: len(c.arguments) for c in calls} | {r.symbol: len(r.arguments) for r in rectangles}
    yield from ('#include "abi.h"', "#include <string.h>", "")
    yield from (f"extern int32_t {s}({', '.join(['void*'] * n)});" for s, n in symbols.items())
    yield ""
    yield f"const char* const evo_target = {json.dumps(triple)};"
    counts = f"evo_num_inputs = {len(inputs)}, evo_num_outputs = {len(outputs)}, evo_num_kernels = {kernels}"
    yield f"const int32_t {counts};"
    yield f"const uint64_t evo_tensor_bytes[] = {{{', '.join(map(str, sizes)) or '0'}}};"
    yield f"const uint64_t evo_weights_bytes = {len(program.weights)}, evo_prepared_bytes = {program.prepared_bytes};"
    yield f"const uint64_t evo_arena_bytes = {arena_bytes};"
    yield ""
    yield from _prepare(program.preparations)
    for peak in peaks:
        yield from _peak(peak)
    if any(isinstance(s, FillBorder) for s in program.steps):
        yield _FILL_BORDER


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


def emit_gates(gates: Sequence[PlannedGate], batch: int = 1) -> Iterator[str]:
    """What the runtime sets and reads: thresholds by place, scores and decisions of the last run by sample too."""
    if not gates:
        return
    slots = sum(gate.decisions for gate in gates)
    thresholds = ", ".join(_float(gate.threshold) for gate in gates for _ in range(gate.decisions))
    yield '#include "gates.h"'
    yield f"EXPORT const int32_t evo_num_gates = {len(gates)}, evo_num_decisions = {slots};"
    yield f"EXPORT float evo_gate_thresholds[] = {{{thresholds}}};"
    yield f"EXPORT _Alignas(kAlign) float evo_gate_scores[{batch * slots}];"
    yield f"EXPORT _Alignas(kAlign) int32_t evo_gate_decisions[{batch * slots}];"
    yield f"static _Alignas(kAlign) uint8_t evo_gate_masks[{batch}][{mask_bytes(gates) or 1}];"
    yield "/* Of each gate: decisions made, and those that were 1. */"
    yield f"EXPORT uint64_t evo_gate_counts[{2 * len(gates)}];"
    yield ""


_OPEN_GATES = (
    "  int32_t* const on = evo_gate_decisions;",
    "  float* const scores = evo_gate_scores;",
    "  uint64_t* const count = evo_gate_counts;",
    "  uint8_t* const masks = evo_gate_masks[0];",
    "  memset(evo_gate_decisions, 0, sizeof evo_gate_decisions);",
    "  for (int32_t i = 0; i < evo_num_decisions; ++i) scores[i] = NAN;",
    "  (void)on, (void)scores, (void)count, (void)masks;",
)


def mask_bytes(gates: Sequence[PlannedGate]) -> int:
    """Of the masks of one sample, each aligned."""
    return sum(align(4 * gate.channels) for gate in gates)


def _float(value: float) -> str:
    return {"inf": "INFINITY", "-inf": "-INFINITY"}.get(str(value), f"{value!r}f")


def emit_steps(steps: Sequence[Step], timed: Callable[[int], str], untimed: str | None) -> Iterator[str]:
    """The steps, those with equal guards in one branch. timed: what follows kernel number so and so; untimed: what
    happens instead, where times are taken, to kernels {first} to {last} in a branch that is not taken."""
    for guards, group in groupby(steps, key=lambda step: step.guards):
        taken = list(group)
        lines = [line for step in taken for line in _step(step, timed)]
        if not guards:
            yield from lines
            continue
        yield f"  if ({' && '.join(('' if g.on else '!') + f'on[{g.slot}]' for g in guards)}) {{"
        yield from (f"  {line}" for line in lines)
        kernels = [step.kernel for step in taken if isinstance(step, Call)]
        if kernels and untimed is not None:
            yield "  } else if (ticks) {"
            yield f"    {untimed.format(first=kernels[0], last=kernels[-1])}"
        yield "  }"


def _step(step: Step, timed: Callable[[int], str]) -> Iterator[str]:
    if isinstance(step, Call):
        arguments = ", ".join(f"(void*)({_pointer(p)})" for p in step.arguments)
        call = f"  if ((code = {step.symbol}({arguments}))) return code;"
        yield from [call] if step.tiles is None else _tiled(call, step.tiles)
        yield f"  {timed(step.kernel)}"
    elif isinstance(step, ClearTiles):
        t, sizes = step.tiles, (step.planes, step.plane_bytes, step.row_bytes, step.pixel_bytes)
        grid = f"on + {t.slot}, {t.rows}, {t.columns}, {t.side}"
        yield f"  gate_clear({_pointer(step.at)}, {', '.join(map(str, sizes))}, {grid});"
    elif isinstance(step, FillBorder):
        numbers = (step.byte, step.planes, step.rows, step.columns, step.pixel_bytes, *step.halo)
        yield f"  fill_border({_pointer(step.at)}, {', '.join(map(str, numbers))});"
    elif isinstance(step, Decide):
        how = "gate_exit" if step.kind == "exit" else "gate_each"
        logits, threshold = f"(const float*)({_pointer(step.logits)})", f"evo_gate_thresholds + {step.slot}"
        places = f"scores + {step.slot}, on + {step.slot}, count + {2 * step.gate}"
        yield f"  {how}({logits}, {step.count}, {threshold}, {places});"
        if step.mask is not None:
            mask = f"(float*)({_pointer(step.mask)})"
            yield f"  gate_mask(on + {step.slot}, {step.count}, {mask}, {step.channels});"
    else:
        yield f"  memcpy({_pointer(step.target)}, {_pointer(step.source)}, {step.size_bytes});"


def _tiled(call: str, tiles: Tiles) -> Iterator[str]:
    """The call where all tiles are on, else one for each rectangle of those that are."""
    yield f"  if (gate_all(on + {tiles.slot}, {tiles.rows * tiles.columns})) {{"
    yield f"  {call}"
    yield "  } else {"
    shapes = ", ".join(f"{{{r.down}, {r.across}}}" for r in tiles.rectangles)
    grid = f"on + {tiles.slot}, {tiles.rows}, {tiles.columns}"
    yield f"    static const GateShape shapes[] = {{{shapes}}};"
    yield f"    GateRectangle found[{tiles.rows * tiles.columns}];"
    yield f"    int32_t many = gate_rectangles({grid}, shapes, {len(tiles.rectangles)}, found);"
    yield "    for (int32_t i = 0; i < many; ++i) {"
    yield "      switch (found[i].shape) {"
    for number, r in enumerate(tiles.rectangles):
        where = [
            f"gate_origin(found[i].{axis}, {tiles.side}, {tiles.margin}, {size}, {whole})"
            for axis, size, whole in (("row", r.height, tiles.height), ("column", r.width, tiles.width))
        ]
        moved = [
            f"(void*)({_pointer(p)}" + (f" + y * {down} + x * {across})" if down else ")")
            for p, (down, across) in zip(r.arguments, r.strides, strict=True)
        ]
        yield f"        case {number}: {{"
        yield f"          const int64_t y = {where[0]}, x = {where[1]};"
        yield f"          if ((code = {r.symbol}({', '.join(moved)}))) return code;"
        yield from ("          break;", "        }")
    yield from ("      }", "    }", "  }")


def _pointer(p: Pointer) -> str:
    if p.space in ("input", "output"):
        return f"(uint8_t*){p.space}s[{p.index}] + {p.offset}"
    return f"{p.space} + {p.offset}"
