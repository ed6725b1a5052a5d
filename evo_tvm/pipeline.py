"""The whole compiler as one list of phases: ONNX model in, Artifact out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tvm

from evo_tvm import __version__
from evo_tvm.artifact import Artifact
from evo_tvm.decide import Knowledge, Times, configure, known_times
from evo_tvm.decide_tile import tile_of_image
from evo_tvm.dump import Dump, graph_text
from evo_tvm.errors import UsageError
from evo_tvm.executor.build import Progress, build, kernels_of
from evo_tvm.frontend import Imported, import_onnx
from evo_tvm.gates.hook import Hook
from evo_tvm.graph import Graph, Group
from evo_tvm.passes.cancel_pairs import cancel_pairs
from evo_tvm.passes.canonicalize import canonicalize
from evo_tvm.passes.eliminate_common_subexpressions import eliminate_common_subexpressions
from evo_tvm.passes.fold_batch_norm import fold_batch_norm
from evo_tvm.passes.fold_bias import fold_bias
from evo_tvm.passes.fold_constants import fold_constants
from evo_tvm.passes.fold_input_scale import fold_input_scale
from evo_tvm.passes.fold_pad import fold_pad
from evo_tvm.passes.fold_scale import fold_scale
from evo_tvm.passes.insert_channel_gates import insert_channel_gates
from evo_tvm.passes.insert_exit_gates import insert_exit_gates
from evo_tvm.passes.insert_precision_gates import insert_precision_gates
from evo_tvm.passes.insert_skip_gates import insert_skip_gates
from evo_tvm.passes.insert_space_gates import insert_space_gates
from evo_tvm.passes.merge_convolutions import merge_convolutions
from evo_tvm.passes.merge_transposes import merge_transposes
from evo_tvm.passes.move_activations import move_activations
from evo_tvm.passes.move_reshapes import move_reshapes
from evo_tvm.passes.move_slices import move_slices
from evo_tvm.passes.move_transposes import move_transposes
from evo_tvm.passes.name_variables import name_variables
from evo_tvm.passes.observe_values import observe_values
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
from evo_tvm.plan.choose_algorithms import Explained, choose_algorithms
from evo_tvm.plan.choose_layouts import Layout, choose_layouts
from evo_tvm.plan.drop_roundings import drop_roundings
from evo_tvm.plan.find_float_layers import find_float_layers
from evo_tvm.plan.fold_permutes import fold_permutes
from evo_tvm.plan.fold_scales import fold_scales
from evo_tvm.plan.fold_shuffles import fold_shuffles
from evo_tvm.plan.fuse_depthwise_pointwise import fuse_depthwise_pointwise
from evo_tvm.plan.fuse_epilogues import fuse_epilogues
from evo_tvm.plan.guard_branches import guard_branches
from evo_tvm.plan.inline_dequantize import inline_dequantize
from evo_tvm.plan.lower_integer import lower_integer
from evo_tvm.plan.merge_rescale import merge_rescale
from evo_tvm.plan.merge_sums import merge_sums
from evo_tvm.plan.move_quantize import move_quantize
from evo_tvm.plan.narrow_tiles import narrow_tiles
from evo_tvm.plan.place_branches import place_branches
from evo_tvm.plan.place_concats import place_concats
from evo_tvm.plan.read_relax import read_relax
from evo_tvm.plan.tile_branches import Configure, tile_branches
from evo_tvm.plan.unify_bytes import unify_bytes
from evo_tvm.plan.workloads_to_measure import workloads_to_measure
from evo_tvm.predict.model import Prediction
from evo_tvm.predict.predict_groups import predict_groups
from evo_tvm.runtime.gates import GateInfo
from evo_tvm.runtime.manifest import Manifest, StayedFloat, TargetInfo
from evo_tvm.spec import TensorSpec, batched
from evo_tvm.target import Target, resolve
from evo_tvm.tune.folders import VARIABLE, user_folder
from evo_tvm.workload import Workload

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
    name_variables,
)

#: Hooks -> Relax module -> Relax module, in order: gates, each kind by a pass of its own.
GATES: Sequence[Callable[[Sequence[Hook], Target], Callable[[tvm.IRModule], tvm.IRModule]]] = (
    lambda hooks, target: insert_precision_gates(hooks),
    lambda hooks, target: insert_channel_gates(hooks),
    lambda hooks, target: insert_space_gates(hooks, lambda _, shape: tile_of_image(shape, target)),
    lambda hooks, target: insert_skip_gates(hooks),
    lambda hooks, target: insert_exit_gates(hooks),
)

#: Kernel graph -> kernel graph, in order, for a target and with some layers in float; of None see `kernel_graph`.
Rewrite = tuple[str, Callable[[Graph, Target, Set[str] | None], Graph]]

#: What goes before `lower_integer`, which computes layers of quantized models in integers.
TOWARDS_INTEGERS: Sequence[Rewrite] = (
    ("unify_bytes", lambda graph, *_: unify_bytes(graph)),
    ("drop_roundings", lambda graph, _, floats: graph if floats is None else drop_roundings(graph, floats)),
    ("move_quantize", lambda graph, *_: move_quantize(graph)),
)

#: What goes behind it: what is computed in one kernel.
FUSE: Sequence[Rewrite] = (
    ("move_quantize", lambda graph, *_: move_quantize(graph)),
    ("merge_sums", lambda graph, *_: merge_sums(graph)),
    ("merge_rescale", lambda graph, _, floats: merge_rescale(graph) if floats is None else graph),
    ("fold_scales", lambda graph, _, floats: graph if floats is None else fold_scales(graph)),
    ("fuse_epilogues", lambda graph, *_: fuse_epilogues(graph)),
    ("inline_dequantize", lambda graph, *_: inline_dequantize(graph)),
    ("fold_permutes", lambda graph, *_: fold_permutes(graph)),
    ("fold_shuffles", lambda graph, *_: fold_shuffles(graph)),
)

#: Kernel graph -> kernel graph, in order, once algorithms are chosen; what configures them is told, too.
PLAN: Sequence[tuple[str, Callable[[Graph, Target, Configure], Graph]]] = (
    ("narrow_tiles", lambda graph, target, _: narrow_tiles(graph, target)),
    ("tile_branches", lambda graph, _, configure: tile_branches(graph, configure)),
    ("assign_layouts", lambda graph, target, _: assign_layouts(graph, target.lanes_f32)),
    ("place_concats", lambda graph, *_: place_concats(graph)),
    ("place_branches", lambda graph, *_: place_branches(graph)),
    ("guard_branches", lambda graph, *_: guard_branches(graph)),
)


def compile(
    model: str | os.PathLike[str] | onnx.ModelProto,
    target: str | Target = "host",
    num_threads: int = 1,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    algorithms: Mapping[str, str] | None = None,
    dump: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    measure: bool = False,
) -> Artifact:
    """As `evo_tvm.compile` of the model as it is, without the cache of whole models; arguments and errors are its."""
    if num_threads < 1:
        raise UsageError("num_threads is too small", expected="at least 1", got=num_threads)
    resolved = target if isinstance(target, Target) else resolve(target)
    writer = Dump(Path(dump)) if dump is not None else None
    imported = clean(model, input_shapes, progress, writer)
    return assemble(imported, resolved, num_threads, algorithms, progress, writer, measure=measure).artifact


def clean(
    model: str | os.PathLike[str] | onnx.ModelProto,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    progress: Progress | None = None,
    writer: Dump | None = None,
) -> Imported:
    """The model as a Relax module that is cleaned up: what does not depend on the target."""
    report = progress or _silent
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
    return replace(imported, module=module)


def attach(imported: Imported, hooks: Sequence[Hook], target: Target, observe: Sequence[str] = ()) -> Imported:
    """The cleaned-up model with a gate for each hook, and with the values `observe` names as further outputs."""
    module = imported.module
    for insert in GATES:
        module = insert(hooks, target)(module)
    if not observe:
        return replace(imported, module=module)
    module = observe_values(observe)(module)
    types = module["main"].ret_ty.fields[len(imported.outputs) :]
    seen = [TensorSpec(n, tuple(int(e) for e in t.shape), str(t.dtype)) for n, t in zip(observe, types, strict=True)]
    return replace(imported, module=module, outputs=(*imported.outputs, *seen))


@dataclass(frozen=True)
class Assembled:
    """A compiled model, and what was decided for its kernels."""

    artifact: Artifact
    explained: tuple[Explained, ...]


def assemble(
    imported: Imported,
    target: Target,
    num_threads: int,
    algorithms: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    writer: Dump | None = None,
    float_layers: Set[str] | None = None,
    batch: int = 1,
    known: Knowledge | None = None,
    measure: bool = False,
) -> Assembled:
    """Compiles a cleaned-up model; float_layers: as of `kernel_graph`. batch: samples that a run takes, one by one,
    through a model of one sample; threads then share out samples. known: as of `plan`. measure: what is best by the
    predictor is measured first, here; the user's tuning logs get the times."""
    sharing = num_threads if batch == 1 else 1
    if measure:
        measure_best(imported, target, sharing, progress or _silent, float_layers)
    planned = plan(imported, target, sharing, algorithms, writer, float_layers, known)
    graph = planned.graph
    inputs, outputs = (batched(specs, batch) for specs in (imported.inputs, imported.outputs))
    built = build(graph, target, inputs, outputs, progress or _silent, batch)
    if writer:
        writer.write("main", built.source, "c")
    manifest = Manifest(
        evo_tvm=__version__,
        tvm=str(tvm.__version__),
        target=TargetInfo(target.name, target.triple, target.cpu, tuple(target.required_features)),
        num_threads=num_threads,
        inputs=inputs,
        outputs=outputs,
        arena_bytes=built.arena_bytes,
        kernels=tuple(
            replace(kernel, predicted_ms=found.value, predicted_by=found.source)
            for kernel, found in zip(built.kernels, planned.predictions, strict=True)
        ),
        plan=tuple(e.as_json() for e in planned.explained),
        layouts=tuple(layout.as_json() for layout in planned.layouts),
        stayed_float=planned.stayed_float,
        prepared_bytes=built.program.prepared_bytes,
        gates=tuple(GateInfo(g.name, g.kind, g.threshold, g.decisions) for g in built.program.gates),
        batch=batch,
    )
    return Assembled(Artifact(manifest, built.library, built.program.weights), planned.explained)


def measure_best(
    imported: Imported, target: Target, num_threads: int, progress: Progress, float_layers: Set[str] | None = None
) -> None:
    """Measures the best few configurations of each kernel that the tuning logs have nothing of, see `measure_top`.

    Raises UsageError: no folder for the user's logs, or another target than this machine.
    """
    from evo_tvm.tune.measure_top import measure_top

    folder = user_folder()
    if folder is None:
        raise UsageError("there is no folder for what is measured", hint=f"{VARIABLE} is off: set it to a folder.")
    apart = kernel_graph(imported.module, target, float_layers).graph
    known = Knowledge.of(target)
    ranking = known.ranking(target, num_threads)
    measure_top(workloads_to_measure(apart, target), target, num_threads, ranking, known.log, folder, progress)


@dataclass(frozen=True)
class Planned:
    """A model as kernels, with their algorithms and layouts. explained: why; predictions: what each of `kernels` is
    expected to take, in milliseconds. layouts: those that there was a choice of."""

    graph: Graph
    explained: tuple[Explained, ...]
    layouts: tuple[Layout, ...]
    stayed_float: tuple[StayedFloat, ...]
    predictions: tuple[Prediction, ...]

    @property
    def kernels(self) -> tuple[Group, ...]:
        """The groups that run, in order."""
        return kernels_of(self.graph)


def plan(
    imported: Imported,
    target: Target,
    num_threads: int,
    algorithms: Mapping[str, str] | None = None,
    writer: Dump | None = None,
    float_layers: Set[str] | None = None,
    known: Knowledge | None = None,
) -> Planned:
    """All that is decided before code is made of it; float_layers: as of `kernel_graph`. known: what decides, in place
    of all that there is for the target."""
    known = known or Knowledge.of(target)
    ranking = known.ranking(target, num_threads)
    times = known_times(target, num_threads, known.log, ranking)
    kernels_apart = kernel_graph(imported.module, target, float_layers, writer, times)
    graph = fuse_depthwise_pointwise(kernels_apart.graph, target, num_threads, known.log, ranking)
    graph, explained = choose_algorithms(graph, target, num_threads, known.log, algorithms or {}, ranking)
    if writer:
        writer.write("choose_algorithms", graph_text(graph))

    def config_of(workload: Workload, algorithm: str) -> object:
        return configure(workload, algorithm, target, num_threads, known.log, ranking).config

    graph = _rewritten(PLAN, writer, graph, target, config_of)
    kernels = kernels_of(graph)
    predictions = predict_groups(graph, kernels, target, num_threads, known.predictor)
    of_layer = dict(zip([group.name for group in kernels], predictions, strict=True))
    explained = tuple(replace(each, prediction=of_layer.get(each.layer)) for each in explained)
    return Planned(graph, explained, kernels_apart.layouts, kernels_apart.stayed_float, predictions)


@dataclass(frozen=True)
class KernelGraph:
    """A model as kernels, none of which has its algorithm yet. stayed_float: what of it could be in integers."""

    graph: Graph
    stayed_float: tuple[StayedFloat, ...]
    layouts: tuple[Layout, ...]


def kernel_graph(
    module: tvm.IRModule,
    target: Target,
    float_layers: Set[str] | None = None,
    writer: Dump | None = None,
    times: Times | None = None,
) -> KernelGraph:
    """The cleaned-up module as kernels, with their layouts; times: what decides of these, see `choose_layouts`.

    float_layers: names of layers of a quantized model that are computed in float all the same; what is rounded to no
    use is not rounded either. None: all that the model has in integers, and every byte as it says.
    """
    graph = read_relax(module)
    if writer:
        writer.write("read_relax", graph_text(graph))
    graph = _rewritten(TOWARDS_INTEGERS, writer, graph, target, float_layers)
    graph, known = lower_integer(graph, target, float_layers or frozenset())
    if writer:
        writer.write("lower_integer", graph_text(graph))
    stayed_float = find_float_layers(graph, known)
    graph, layouts = choose_layouts(_rewritten(FUSE, writer, graph, target, float_layers), target, times)
    if writer:
        writer.write("choose_layouts", graph_text(graph))
    return KernelGraph(graph, stayed_float, layouts)


def _rewritten(
    steps: Sequence[tuple[str, Callable[..., Graph]]], writer: Dump | None, graph: Graph, *more: object
) -> Graph:
    """What the steps make of the graph, one by one; `more`: what each is told beside it."""
    for name, rewrite in steps:
        graph = rewrite(graph, *more)
        if writer:
            writer.write(name, graph_text(graph))
    return graph


def _silent(phase: str, done: int, total: int) -> None:
    """Nobody wants to hear of the progress."""
