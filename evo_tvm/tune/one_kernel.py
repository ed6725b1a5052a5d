"""A workload, an algorithm and its configuration => a library that runs that one kernel as a model would."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.decide import Decision
from evo_tvm.executor.build import NO_KERNEL
from evo_tvm.executor.cache import Cache
from evo_tvm.executor.codegen import build_object
from evo_tvm.executor.emit import emit_c
from evo_tvm.executor.kernel_key import kernel_key
from evo_tvm.executor.link import SUPPORT_SOURCES, link_library
from evo_tvm.executor.program import plan_program
from evo_tvm.executor.schedule_group import schedule_group
from evo_tvm.graph import Graph, Group, Op, Value
from evo_tvm.kernels.lower_group import lower_group
from evo_tvm.plan.assign_layouts import assign_layouts
from evo_tvm.plan.choose_algorithms import apply_decision
from evo_tvm.plan.place_concats import place_concats
from evo_tvm.plan.storage import Placement
from evo_tvm.spec import TensorSpec
from evo_tvm.target import Target
from evo_tvm.workload import FEW_CHANNELS, Workload, anchor_of, workload_of

#: Operators none of whose operands is constant.
_OF_ACTIVATIONS = frozenset(("matmul",))
_POOLS = frozenset(("avg_pool2d", "max_pool2d"))
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


@dataclass(frozen=True)
class OneKernel:
    """A library that computes one workload on one input: `kernel` numbers its kernel among those of the library, which
    bring the input into its layout and the result out of it. Files, for `evo_tvm.tune.timer`. dtypes: of the inputs and
    of the result, in order."""

    library: str
    weights: str
    kernel: int
    dtypes: tuple[str, ...]


def graph_of(workload: Workload, algorithm: str, config: Any) -> Graph:
    """A graph of this kernel alone: weights random but always the same, activations from outside.

    Epilogue: the first addition is a bias, any further one adds a tensor as large as the result, and so does a blend
    of bytes; other operators of two operands take a constant for each channel. Bytes are multiplied by signed bytes,
    and their bias is int32.
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
    group = Group("kernel", tuple(values), ("y",), (anchor_of(workload), *epilogue))
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


def behind_convolution(graph: Graph, target: Target, num_threads: int) -> Graph:
    """pool(x) => pool(conv2d_1x1(x)): a pool takes the layout of what it reads, which is blocked behind a convolution.

    Pools of so few channels that they are not blocked in a model either, and all other kernels, stay as they are.
    """
    (group,) = graph.groups
    data = graph.values[group.inputs[0]]
    if group.anchor.kind not in _POOLS or data.shape[1] <= FEW_CHANNELS or data.dtype != "float32":
        return graph
    n, c, *image = data.shape
    x = Value("image", (n, 1, *image), data.dtype)
    weight = Value("weight", (c, 1, 1, 1), data.dtype, np.linspace(0.5, 1, c, dtype=data.dtype).reshape(c, 1, 1, 1))
    attrs: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
    if "blocks" in group.anchor.attrs:
        attrs["blocks"] = (1, group.anchor.attrs["blocks"][0])
    before = Group("before", (x.name, weight.name), (data.name,), (Op("conv2d", (0, 1), attrs),))
    inputs = tuple(x.name if name == data.name else name for name in graph.inputs)
    graph = Graph({**graph.values, x.name: x, weight.name: weight}, (before, group), inputs, graph.outputs)
    workload = workload_of(graph, before)
    algorithm = next(iter(ALGORITHMS["conv2d"].values()))
    decision = Decision(algorithm.name, algorithm.default(workload, target, num_threads), "", ())
    return graph.with_groups([apply_decision(before, workload, decision), group])


def build_one(
    workload: Workload,
    algorithm: str,
    config: Any,
    target: Target,
    num_threads: int,
    cache: Cache,
    folder: Path,
    name: str,
) -> OneKernel:
    """Builds as the compiler does; what `cache` has is not compiled again. Raises whatever scheduling and code
    generation raise where the configuration does not fit."""
    graph = behind_convolution(graph_of(workload, algorithm, config), target, num_threads)
    graph = place_concats(assign_layouts(graph, target.lanes_f32))
    placement = Placement(graph)
    groups = [group for group in graph.groups if group.anchor.kind not in NO_KERNEL]
    lowered = [lower_group(graph, placement, group, target.lanes_f32) for group in groups]
    objects: dict[str, Path] = {}
    symbols = []
    for kernel in lowered:
        key = kernel_key(kernel, target)
        symbols.append(f"evo_kernel_{key[:16]}")
        if key in objects:
            continue
        objects[key] = folder / f"{name}.{len(objects)}.o"
        code = cache.get("kernel", key)
        if code is None:
            schedule = schedule_group(kernel, target)
            build_object(schedule.mod["main"], symbols[-1], target.tvm(), str(objects[key]))
            cache.put("kernel", key, objects[key].read_bytes())
        else:
            objects[key].write_bytes(code)
    program = plan_program(graph, lowered, symbols)
    inputs, outputs = ([_spec(graph.values[n]) for n in some] for some in (graph.inputs, graph.outputs))
    main, library, weights = (folder / f"{name}.{ending}" for ending in ("c", "so", "weights"))
    main.write_text(emit_c(program, target.triple, inputs, outputs, len(lowered)))
    link_library(list(objects.values()), [main, *SUPPORT_SOURCES], library, target.triple, cache)
    weights.write_bytes(program.weights)
    number = next(i for i, kernel in enumerate(lowered) if kernel.group.name == "kernel")
    dtypes = tuple(spec.dtype for spec in (*inputs, *outputs))
    return OneKernel(str(library), str(weights), number, dtypes)


def _spec(value: Value) -> TensorSpec:
    return TensorSpec(value.name, value.shape, value.dtype)
