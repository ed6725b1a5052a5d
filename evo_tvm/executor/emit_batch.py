"""Program of one sample => the `main` of a batch: stage by stage, over the samples that are still there.

A stage ends where an exit has decided. Samples that leave have their output written; the numbers of the others are
moved together, and the next stage runs over those. Threads take samples one by one, each with its own part of the
arena; where fewer samples are left than threads, the kernels' own loops are shared out instead. A sample's output is
written to its own place, so that the order is the input's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from evo_tvm.executor.emit import emit_gates, emit_head, emit_steps
from evo_tvm.executor.memory import align
from evo_tvm.executor.peak import Peak
from evo_tvm.executor.program import Decide, Program, Step
from evo_tvm.spec import TensorSpec

_RUN = """\
/* What the stages of a run share. `spent`: time of each kernel, over all samples; NULL where nobody asked. */
typedef struct {
  void* const* inputs;
  void* const* outputs;
  const uint8_t *weights, *prepared;
  uint8_t* arena;
  uint64_t* spent;
} Run;
typedef int32_t (*Stage)(const Run* run, int32_t sample);

/* The samples that a stage works on, of which threads take one after the other. */
typedef struct {
  const Run* run;
  Stage stage;
  const int32_t* samples;
  int32_t count;
  atomic_int next;
} Work;

static int take_samples(int task_id, TVMParallelGroupEnv* env, void* data) {
  Work* work = data;
  (void)task_id, (void)env;
  for (int32_t i; (i = atomic_fetch_add(&work->next, 1)) < work->count;) {
    int32_t code = work->stage(work->run, work->samples[i]);
    if (code) return code;
  }
  return 0;
}

static int32_t run_stage(const Run* run, Stage stage, const int32_t* samples, int32_t count) {
  Work work = {run, stage, samples, count, 0};
  TVMParallelGroupEnv alone = {NULL, 1};
  if (run->spent || count < evo_threads_here()) return take_samples(0, &alone, &work);
  return TVMBackendParallelLaunch(take_samples, &work, 0);
}

/* Moves the samples together whose decision at `slot` is 0; how many they are. */
static int32_t remaining(int32_t* samples, int32_t count, int32_t slot) {
  int32_t left = 0;
  for (int32_t i = 0; i < count; ++i) {
    if (!evo_gate_decisions[samples[i] * evo_num_decisions + slot]) samples[left++] = samples[i];
  }
  return left;
}

static void lap(uint64_t* spent, uint64_t* last) {
  uint64_t now = evo_now_ns();
  *spent += now - *last;
  *last = now;
}
"""


def sample_stride(program: Program, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], batch: int) -> int:
    """Bytes of a sample's part of the arena: its values, and those inputs and outputs that do not lie aligned."""
    return align(program.arena_bytes) + sum(_staged(inputs, batch)) + sum(_staged(outputs, batch))


def emit_batch_c(
    program: Program,
    triple: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    kernels: int,
    peaks: Sequence[Peak],
    batch: int,
) -> str:
    """The text of model.c for `batch` samples. inputs, outputs: of all samples; program: of one."""
    stride = sample_stride(program, inputs, outputs, batch)
    stages = [*_stages(program.steps)]
    ended = [stage[-1] for stage in stages]
    lines = [
        *emit_head(program, triple, inputs, outputs, kernels, peaks, stride * batch),
        "#include <stdatomic.h>",
        *emit_gates(program.gates, batch),
        f"static uint64_t counts[{batch}][{2 * max(len(program.gates), 1)}];",
        _RUN,
        *(line for i, stage in enumerate(stages) for line in _stage(i, stage, inputs, outputs, program, batch)),
        "int32_t evo_model_main(void* const* inputs, void* const* outputs, const uint8_t* weights,",
        "                       const uint8_t* prepared, uint8_t* arena, uint64_t* ticks) {",
        f"  int32_t code, samples[{batch}], count = {batch};",
        f"  uint64_t spent[{max(kernels, 1)}] = {{0}};",
        "  const Run run = {inputs, outputs, weights, prepared, arena, ticks ? spent : NULL};",
        "  memset(evo_gate_decisions, 0, sizeof evo_gate_decisions);",
        f"  for (int32_t i = 0; i < {batch} * evo_num_decisions; ++i) evo_gate_scores[i] = NAN;",
        "  memset(counts, 0, sizeof counts);",
        f"  for (int32_t i = 0; i < {batch}; ++i) samples[i] = i;",
        "  if (ticks) ticks[0] = evo_now_ns();",
    ]
    for i, last in enumerate(ended):
        lines.append(f"  if (count && (code = run_stage(&run, stage_{i}, samples, count))) return code;")
        if isinstance(last, Decide) and last.kind == "exit":
            lines.append(f"  count = remaining(samples, count, {last.slot});")
    lines += [
        *_copies_out(program, inputs, outputs, batch, stride),
        f"  for (int32_t i = 0; i < {batch}; ++i) {{",
        "    for (int32_t g = 0; g < 2 * evo_num_gates; ++g) evo_gate_counts[g] += counts[i][g];",
        "  }",
        "  if (ticks) {",
        f"    for (int32_t i = 0; i < {kernels}; ++i) ticks[i + 1] = ticks[i] + spent[i];",
        "  }",
        "  return 0;",
        "}",
        "",
    ]
    return "\n".join(lines)


def _stages(steps: Sequence[Step]) -> Iterator[list[Step]]:
    stage: list[Step] = []
    for step in steps:
        stage.append(step)
        if isinstance(step, Decide) and step.kind == "exit":
            yield stage
            stage = []
    if stage:
        yield stage


def _stage(
    number: int,
    steps: Sequence[Step],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    program: Program,
    batch: int,
) -> Iterator[str]:
    stride = sample_stride(program, inputs, outputs, batch)
    at = align(program.arena_bytes)
    places: dict[str, list[str]] = {"inputs": [], "outputs": []}
    copies = []
    for name, specs in (("inputs", inputs), ("outputs", outputs)):
        for i, (spec, staged) in enumerate(zip(specs, _staged(specs, batch), strict=True)):
            own = f"(uint8_t*)run->{name}[{i}] + (size_t)sample * {_bytes(spec, batch)}"
            places[name].append(f"arena + {at}" if staged else own)
            if staged and name == "inputs" and number == 0:
                copies.append(f"  memcpy(arena + {at}, {own}, {_bytes(spec, batch)});")
            at += staged
    yield f"static int32_t stage_{number}(const Run* run, int32_t sample) {{"
    yield f"  uint8_t* const arena = run->arena + (size_t)sample * {stride};"
    yield f"  void* const inputs[] = {{{', '.join(places['inputs']) or 'NULL'}}};"
    yield f"  void* const outputs[] = {{{', '.join(places['outputs']) or 'NULL'}}};"
    yield "  const uint8_t *const weights = run->weights, *const prepared = run->prepared;"
    yield "  int32_t* const on = evo_gate_decisions + sample * evo_num_decisions;"
    yield "  uint8_t* const masks = evo_gate_masks[sample];"
    yield "  float* const scores = evo_gate_scores + sample * evo_num_decisions;"
    yield "  uint64_t* const count = counts[sample];"
    yield "  uint64_t last = run->spent ? evo_now_ns() : 0;"
    yield "  int32_t code;"
    names = "arena, inputs, outputs, weights, prepared, on, masks, scores, count, last, code"
    yield "  " + ", ".join(f"(void){name}" for name in names.split(", ")) + ";"
    yield from copies
    yield from emit_steps(steps, lambda kernel: f"if (run->spent) lap(run->spent + {kernel}, &last);", None)
    yield from ("  return 0;", "}", "")


def _copies_out(
    program: Program, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], batch: int, stride: int
) -> Iterator[str]:
    at = align(program.arena_bytes) + sum(_staged(inputs, batch))
    for i, (spec, staged) in enumerate(zip(outputs, _staged(outputs, batch), strict=True)):
        if staged:
            size = _bytes(spec, batch)
            target, source = f"(uint8_t*)outputs[{i}] + (size_t)s * {size}", f"arena + (size_t)s * {stride} + {at}"
            yield f"  for (int32_t s = 0; s < {batch}; ++s) memcpy({target}, {source}, {size});"
        at += staged


def _bytes(spec: TensorSpec, batch: int) -> int:
    """Of one sample."""
    return spec.size * np.dtype(spec.dtype).itemsize // batch


def _staged(specs: Sequence[TensorSpec], batch: int) -> list[int]:
    """Of each tensor, the bytes that a sample of it takes in the arena; 0 where every sample lies aligned anyway."""
    sizes = [_bytes(spec, batch) for spec in specs]
    return [align(size) if size % align(1) else 0 for size in sizes]
