"""Compiles a model with gates: hooks become branches of the compiled `main`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evo_tvm.artifact import Artifact
from evo_tvm.dump import Dump
from evo_tvm.errors import UsageError
from evo_tvm.gates.hook import Hook
from evo_tvm.target import Target, resolve

if TYPE_CHECKING:
    import onnx

    from evo_tvm.executor.build import Progress


def compile_gated(
    model: str | os.PathLike[str] | onnx.ModelProto,
    hooks: Sequence[Hook] = (),
    target: str | Target = "host",
    num_threads: int = 1,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    algorithms: Mapping[str, str] | None = None,
    *,
    batch: int = 1,
    observe: Sequence[str] = (),
    dump: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """As `evo_tvm.compile` of the model in float, with a gate for each hook.

    batch: how many samples a run takes, of which `input_shapes` describe one. Each goes its own way through the gates,
    exactly as it would alone; those that have not left are computed together, stage by stage, on all threads.
    observe: names of values, those of the cleaned-up Relax module, which the compiled model gives as further outputs
    under these names. Raises UsageError, beside what `compile` raises: a hook that does not fit the model.
    """
    if num_threads < 1:
        raise UsageError("num_threads is too small", expected="at least 1", got=num_threads)
    if batch < 1:
        raise UsageError("the batch is too small", expected="at least 1", got=batch)
    from evo_tvm import pipeline

    resolved = target if isinstance(target, Target) else resolve(target)
    writer = Dump(Path(dump)) if dump is not None else None
    imported = pipeline.clean(model, input_shapes, progress, writer)
    gated = pipeline.attach(imported, hooks, resolved, observe)
    if writer:
        writer.write("gates", gated.module.script())
    return pipeline.assemble(gated, resolved, num_threads, algorithms, progress, writer, batch=batch).artifact
