"""A workload, an algorithm and its configuration => a graph of that one kernel, as a model would have it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from evo_tvm.artifact import Artifact
from evo_tvm.decide import Decision
from evo_tvm.executor.build import build, kernels_of
from evo_tvm.graph import Graph, Group, Op, Value
from evo_tvm.plan.assign_layouts import assign_layouts
from evo_tvm.plan.choose_algorithms import apply_decision
from evo_tvm.plan.place_concats import place_concats
from evo_tvm.runtime.manifest import Manifest, TargetInfo
from evo_tvm.spec import TensorSpec
from evo_tvm.target import Target
from evo_tvm.workload import Workload, anchor_of

#: Operators none of whose operands is constant.
_OF_ACTIVATIONS = frozenset(("matmul",))
_BINARY = frozenset(("add", "blend", "divide", "maximum", "minimum", "multiply", "prelu", "rescale", "subtract"))
#: What the attributes of epilogue operators are does not change their time; a workload does not keep them.
_ATTRIBUTES: Mapping[str, Mapping[str, Any]] = {
    "blend": {"left": 0.5, "right": 0.5, "start": 0.0},
    "clip": {"min": 0.0, "max": 6.0},
    "dequantize": {"scale": 0.1, "zero_point": 0},
    "hard_sigmoid": {"alpha": 1 / 6, "beta": 0.5},
    "leaky_relu": {"alpha": 0.1},
    "quantize": {"scale": 1.0, "zero_point": 0, "dtype": "uint8"},
}


#: The name of the group that is measured.
KERNEL = "kernel"


@dataclass(frozen=True)
class Candidate:
    """What may be measured: a workload, an algorithm and its configuration.

    graph: of a kernel that has neither (an elementwise one, a change of layout): the kernel as a model has it, its
    layouts assigned, in a graph of its own; its group is named `KERNEL`. function: its PrimFunc, scheduled already.
    """

    workload: Workload
    algorithm: str
    config: Any = None
    graph: Graph | None = field(default=None, compare=False, repr=False)
    function: Any = field(default=None, compare=False, repr=False)


def graph_of(workload: Workload, algorithm: str, config: Any) -> Graph:
    """A graph of this kernel alone: weights random but always the same, activations from outside.

    Epilogue: the first addition is a bias, any further one adds a tensor as large as the result, and so does a blend
    of bytes; other operators of two operands take a constant for each channel, and so do all between two convolutions.
    Bytes are multiplied by signed bytes, and their bias is int32.
    """
    in_bytes = workload.dtype == "uint8"
    random = np.random.default_rng(0)
    values: dict[str, Value] = {}
    inputs: list[str] = []

    def activation(shape: tuple[int, ...], dtype: str = workload.dtype) -> int:
        inputs.append(f"x{len(inputs)}")
        values[inputs[-1]] = Value(inputs[-1], shape, dtype)
        return len(values) - 1

    def constant(shape: tuple[int, ...], dtype: str, terms: int = 1) -> int:
        numbers = random.standard_normal(shape, np.float32)
        data = (np.clip(numbers * 40, -127, 127) if dtype != "float32" else numbers / math.sqrt(terms)).astype(dtype)
        values[f"c{len(values)}"] = Value(f"c{len(values)}", shape, dtype, data)
        return len(values) - 1

    image = len(workload.output) == 4 and workload.operator not in _OF_ACTIVATIONS
    channels = workload.output[1 if image else -1]
    for i, shape in enumerate(workload.shapes):
        if i == 0 or workload.operator in _OF_ACTIVATIONS:
            activation(shape)
        else:
            constant(shape, "int8" if in_bytes else workload.dtype, max(1, math.prod(shape) // channels))
    anchor = anchor_of(workload)
    if workload.between:
        hidden = workload.shapes[0][1]
        tensors = [constant((1, hidden, 1, 1), "float32") if kind in _BINARY else None for kind in workload.between]
        kinds = zip(workload.between, tensors, strict=True)
        steps = tuple((kind, _ATTRIBUTES.get(kind, {}), tensor) for kind, tensor in kinds)
        anchor = replace(anchor, attrs={**anchor.attrs, "between": steps})
    operands: list[tuple[int, ...]] = []
    for i, kind in enumerate(workload.epilogue):
        if kind not in _BINARY:
            operands.append(())
        elif kind == "blend" or (kind == "add" and "add" in workload.epilogue[:i]):
            operands.append((activation(workload.output, "uint8" if kind == "blend" else "float32"),))
        else:
            dtype = "int32" if in_bytes and i == 0 and kind == "add" else "float32"
            small = 1 << 16 if kind == "rescale" else 1  # sums of bytes are large
            operands.append((constant((1, channels, 1, 1) if image else (channels,), dtype, small),))
    epilogue = [
        Op(kind, (len(values) + k, *others), _ATTRIBUTES.get(kind, {}))
        for k, (kind, others) in enumerate(zip(workload.epilogue, operands, strict=True))
    ]
    group = Group(KERNEL, tuple(values), ("y",), (anchor, *epilogue))
    group = apply_decision(group, workload, Decision(algorithm, config, "", ()))
    values["y"] = Value("y", workload.output, _result(workload))
    return Graph(values, (group,), tuple(inputs), ("y",))


def _result(workload: Workload) -> str:
    """The dtype of the kernel's result."""
    if workload.dtype == "float32":
        return "float32"
    if workload.epilogue:
        return {"quantize": "uint8", "add": "int32"}.get(workload.epilogue[-1], "float32")
    return {"max_pool2d": "uint8", "avg_pool2d": "float32"}.get(workload.operator, "int32")


def planned(candidate: Candidate, target: Target) -> Graph:
    """The graph of the candidate's kernel, layouts assigned."""
    if candidate.graph is not None:
        return candidate.graph
    graph = graph_of(candidate.workload, candidate.algorithm, candidate.config)
    return place_concats(assign_layouts(graph, target.lanes_f32))


def build_artifact(candidate: Candidate, target: Target, num_threads: int) -> tuple[Artifact, int]:
    """(a model that computes the candidate's kernel on inputs as they are, the kernel's number in its profile): other
    kernels bring inputs into its layout, and the result out of it. For boards.

    Raises whatever scheduling and code generation raise where the configuration does not fit.
    """
    graph = planned(candidate, target)
    inputs, outputs = ([_spec(graph.values[n]) for n in some] for some in (graph.inputs, graph.outputs))
    built = build(graph, target, inputs, outputs, lambda text, done, total: None)
    manifest = Manifest(
        evo_tvm=version("evo_tvm"),
        tvm=version("apache-tvm"),
        target=TargetInfo(target.name, target.triple, target.cpu, tuple(target.required_features)),
        num_threads=num_threads,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        arena_bytes=built.program.arena_bytes,
        kernels=built.kernels,
        prepared_bytes=built.program.prepared_bytes,
    )
    names = [group.name for group in kernels_of(graph)]
    return Artifact(manifest, built.library, bytes(built.program.weights)), names.index(KERNEL)


def _spec(value: Value) -> TensorSpec:
    return TensorSpec(value.name, value.shape, value.dtype)
