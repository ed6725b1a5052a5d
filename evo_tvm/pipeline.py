"""The whole compiler as one list of phases: ONNX model in, Artifact out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tvm

from evo_tvm import __version__
from evo_tvm.artifact import Artifact
from evo_tvm.errors import UsageError
from evo_tvm.executor.build import Progress, build
from evo_tvm.frontend import import_onnx
from evo_tvm.graph import Graph
from evo_tvm.passes.cancel_pairs import cancel_pairs
from evo_tvm.passes.canonicalize import canonicalize
from evo_tvm.passes.eliminate_common_subexpressions import eliminate_common_subexpressions
from evo_tvm.passes.fold_batch_norm import fold_batch_norm
from evo_tvm.passes.fold_bias import fold_bias
from evo_tvm.passes.fold_constants import fold_constants
from evo_tvm.passes.fold_input_scale import fold_input_scale
from evo_tvm.passes.fold_pad import fold_pad
from evo_tvm.passes.fold_scale import fold_scale
from evo_tvm.passes.merge_convolutions import merge_convolutions
from evo_tvm.passes.merge_transposes import merge_transposes
from evo_tvm.passes.move_activations import move_activations
from evo_tvm.passes.move_reshapes import move_reshapes
from evo_tvm.passes.move_slices import move_slices
from evo_tvm.passes.move_transposes import move_transposes
from evo_tvm.passes.rebuild_activations import rebuild_activations
from evo_tvm.passes.rebuild_channel_shuffle import rebuild_channel_shuffle
from evo_tvm.passes.rebuild_gelu import rebuild_gelu
from evo_tvm.passes.rebuild_layer_norm import rebuild_layer_norm
from evo_tvm.passes.rebuild_softmax import rebuild_softmax
from evo_tvm.passes.recover_operators import recover_operators
from evo_tvm.passes.remove_no_ops import remove_no_ops
from evo_tvm.passes.replace_mean_with_global_pool import replace_mean_with_global_pool
from evo_tvm.passes.simplify_powers import simplify_powers
from evo_tvm.plan.assign_layouts import assign_layouts
from evo_tvm.plan.choose_algorithms import choose_algorithms
from evo_tvm.plan.choose_layouts import choose_layouts
from evo_tvm.plan.fold_permutes import fold_permutes
from evo_tvm.plan.fold_shuffles import fold_shuffles
from evo_tvm.plan.fuse_depthwise_pointwise import fuse_depthwise_pointwise
from evo_tvm.plan.fuse_epilogues import fuse_epilogues
from evo_tvm.plan.place_concats import place_concats
from evo_tvm.plan.read_relax import read_relax
from evo_tvm.runtime.manifest import Manifest, TargetInfo
from evo_tvm.target import Target, resolve
from evo_tvm.tune.log import log_of

if TYPE_CHECKING:
    import onnx

#: Relax module -> Relax module, in order.
CLEAN_UP: Sequence[tvm.transform.Pass] = (
    recover_operators,
    canonicalize,
    fold_constants,
    remove_no_ops,
    cancel_pairs,
    simplify_powers,
    rebuild_activations,
    rebuild_channel_shuffle,
    rebuild_gelu,
    rebuild_softmax,
    rebuild_layer_norm,
    move_reshapes,
    move_slices,
    move_transposes,
    replace_mean_with_global_pool,
    fold_pad,
    fold_batch_norm,
    move_reshapes,
    move_activations,
    fold_scale,
    fold_input_scale,
    fold_bias,
    merge_convolutions,
    fold_pad,
    merge_transposes,
    cancel_pairs,
    eliminate_common_subexpressions,
    remove_no_ops,
)

#: Kernel graph -> kernel graph, in order; between the first and the others algorithms are chosen.
PLAN: Sequence[tuple[str, Callable[[Graph, Target], Graph]]] = (
    ("assign_layouts", lambda graph, target: assign_layouts(graph, target.lanes_f32)),
    ("place_concats", lambda graph, target: place_concats(graph)),
)

PRECISIONS = ("fp32",)


def compile(
    model: str | os.PathLike[str] | onnx.ModelProto,
    target: str | Target = "host",
    num_threads: int = 1,
    precision: str = "fp32",
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    algorithms: Mapping[str, str] | None = None,
    dump: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """As `evo_tvm.compile`, whose arguments and errors these are, without its cache of whole models."""
    if precision not in PRECISIONS:
        raise UsageError("unknown precision", expected=" or ".join(PRECISIONS), got=precision)
    if num_threads < 1:
        raise UsageError("num_threads is too small", expected="at least 1", got=num_threads)
    report = progress or (lambda phase, done, total: None)
    resolved = target if isinstance(target, Target) else resolve(target)
    writer = _Dump(Path(dump)) if dump is not None else None

    report("import", 0, 1)
    imported = import_onnx(model, input_shapes)
    module = imported.module
    report("import", 1, 1)
    if writer:
        writer.write("import", module.script())
    for i, step in enumerate(CLEAN_UP):
        report("clean up", i, len(CLEAN_UP))
        module = step(module)
        if writer:
            writer.write(str(step.info.name), module.script())
    graph = kernel_graph(module, resolved)
    log = log_of(resolved)
    graph = fuse_depthwise_pointwise(graph, resolved, num_threads, log)
    graph, explained = choose_algorithms(graph, resolved, num_threads, log, algorithms or {})
    if writer:
        writer.write("choose_algorithms", graph_text(graph))
    for name, rewrite in PLAN:
        graph = rewrite(graph, resolved)
        if writer:
            writer.write(name, graph_text(graph))
    built = build(graph, resolved, imported.inputs, imported.outputs, report)
    if writer:
        writer.write("main", built.source, "c")
    manifest = Manifest(
        evo_tvm=__version__,
        tvm=str(tvm.__version__),
        target=TargetInfo(resolved.name, resolved.triple, resolved.cpu, tuple(resolved.required_features)),
        num_threads=num_threads,
        inputs=tuple(imported.inputs),
        outputs=tuple(imported.outputs),
        arena_bytes=built.program.arena_bytes,
        kernels=built.kernels,
        plan=tuple(e.as_json() for e in explained),
        prepared_bytes=built.program.prepared_bytes,
    )
    return Artifact(manifest, built.library, built.program.weights)


def kernel_graph(module: tvm.IRModule, target: Target) -> Graph:
    """The cleaned-up module as kernels, none of which has its algorithm yet."""
    graph = fold_shuffles(fold_permutes(fuse_epilogues(read_relax(module))))
    return choose_layouts(graph, target)


class _Dump:
    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"the dump folder cannot be made ({error.strerror})", where=folder) from None

    def write(self, name: str, text: str, suffix: str = "txt") -> None:
        (self.folder / f"{self.count:02d}_{name}.{suffix}").write_text(text)
        self.count += 1


def graph_text(graph: Graph) -> str:
    """The kernel graph, one kernel a line."""

    def show(name: str) -> str:
        value = graph.values[name]
        place = f" in {graph.parts[name].whole}+{graph.parts[name].channel}" if name in graph.parts else ""
        kind = "const " if value.data is not None else ""
        return f"{kind}{name}: {value.dtype}{list(value.shape)} {value.layout}{place}"

    lines = []
    for group in graph.groups:
        ops = " -> ".join(f"{op.kind}{list(op.args)}" for op in group.ops)
        lines.append(f"{', '.join(map(show, group.outputs))}\n  = {ops}\n  ({'; '.join(map(show, group.inputs))})")
    return "\n".join(lines) + f"\nreturn {', '.join(graph.outputs)}\n"
