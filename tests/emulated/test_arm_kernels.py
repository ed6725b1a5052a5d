"""Kernels for AArch64 under an emulator against numpy: bytes exactly, float32 to rounding, with plain NEON, with the
dot product of signed bytes, and with that of mixed ones. Awkward shapes, configured by the analytic rule."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.bench.emulated_kernel import EmulatedKernel
from evo_tvm.bench.emulator import missing_packages
from evo_tvm.bench.inner_loops import inner_loop
from evo_tvm.executor.codegen import assembly
from evo_tvm.executor.schedule_group import schedule_group
from evo_tvm.graph import Graph
from evo_tvm.kernels.lower_group import LoweredGroup, lower_group
from evo_tvm.plan.assign_layouts import assign_layouts
from evo_tvm.plan.place_concats import place_concats
from evo_tvm.plan.storage import Placement
from evo_tvm.target import Target, resolve
from evo_tvm.tune.one_kernel import KERNEL, graph_of
from evo_tvm.workload import Workload
from tests import reference

#: target -> what multiplies bytes there
TARGETS = {"aarch64-linux-gnu": "smlal", "cortex-a76": "sdot", "cortex-a76+i8mm": "usdot"}
TOLERANCE = 1e-5

#: algorithm, workload without its dtype, shape of the result
BYTES = [
    ("spatial_pack", "conv2d 1x3x13x15 19x3x7x7 dilation=1,1 groups=1 padding=0,0,0,0 stride=2,2", (1, 19, 4, 5)),
    ("spatial_pack", "conv2d 1x33x7x11 40x33x3x3 dilation=1,1 groups=1 padding=0,0,0,0 stride=1,1", (1, 40, 5, 9)),
    ("spatial_pack", "conv2d 1x24x1x1 10x24x1x1 dilation=1,1 groups=1 padding=0,0,0,0 stride=1,1", (1, 10, 1, 1)),
    ("depthwise_dot", "depthwise_conv2d 1x21x9x10 21x1x3x3 dilation=1,1 padding=0,0,0,0 stride=1,1", (1, 21, 7, 8)),
    ("depthwise_dot", "depthwise_conv2d 1x8x9x11 8x1x5x5 dilation=1,1 padding=0,0,0,0 stride=2,2", (1, 8, 3, 4)),
    ("dense", "dense 3x45 45x22", (3, 22)),
]
FLOATS = [
    BYTES[0],
    BYTES[1],
    ("winograd4", "conv2d 1x8x12x10 20x8x3x3 dilation=1,1 groups=1 padding=0,0,0,0 stride=1,1", (1, 20, 10, 8)),
    ("depthwise", BYTES[3][1], BYTES[3][2]),
    ("dense", "dense 3x45 45x22", (3, 22)),
]


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    found = resolve(request.param)
    if missing_packages(found):
        pytest.skip(f"run scripts/setup_emulators, or apt install {' '.join(missing_packages(found))}")
    return found


def lowered_kernel(algorithm: str, workload: Workload, target: Target) -> tuple[Graph, LoweredGroup]:
    config = ALGORITHMS[workload.operator][algorithm].default(workload, target, 1)
    graph = place_concats(assign_layouts(graph_of(workload, algorithm, config), target.lanes_f32))
    group = next(group for group in graph.groups if group.name == KERNEL)
    return graph, lower_group(graph, Placement(graph), group, target.lanes_f32, target.signed_bytes)


def in_blocks(x: np.ndarray, shape: tuple[int, ...], fill: int) -> np.ndarray:
    """NCHW, or a matrix, in the corner of an array of `shape`, (N, C/b, H, W, b) of an image."""
    result = np.full(shape, fill, x.dtype)
    if x.ndim == 2:
        result.reshape(x.shape)[:] = x
        return result
    (_, c, height, width), block = x.shape, shape[-1]
    for channel in range(c):
        result[:, channel // block, :height, :width, channel % block] = x[:, channel]
    return result


def run(algorithm: str, workload: Workload, target: Target, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """What the kernel gives, a bias added, and what numpy does."""
    graph, lowered = lowered_kernel(algorithm, workload, target)
    rng = np.random.default_rng(3)
    shape = workload.shapes[0]
    in_bytes = workload.dtype == "uint8"
    x = rng.integers(0, 256, shape, np.uint8) if in_bytes else rng.standard_normal(shape, np.float32)
    arrays = []
    for parameter, shape_there in zip(lowered.parameters[:-1], lowered.func.params, strict=False):
        if parameter.data is not None:
            arrays.append(parameter.data)
        elif parameter.packing is not None:
            arrays.append(parameter.packing.apply(graph.values[parameter.name].data))
        else:
            there = tuple(int(e) for e in shape_there.ty.shape)
            arrays.append(in_blocks(x, there, 77 if in_bytes and algorithm == "depthwise_dot" else 0))
    got = EmulatedKernel(schedule_group(lowered, target).mod["main"], target, folder)(*arrays)
    weight, bias = (graph.values[name].data for name in lowered.group.inputs[1:3])
    terms = (x.astype(np.int64), weight.astype(np.int64)) if in_bytes else (x.astype(np.float64), weight)
    if workload.operator == "dense":
        return got.reshape(workload.output), terms[0] @ terms[1] + bias
    stride, groups = workload.attributes["stride"], shape[1] if workload.operator == "depthwise_conv2d" else 1
    wanted = reference.conv2d(*terms, stride, (0, 0, 0, 0), (1, 1), groups) + bias
    n, blocks, height, width, block = (int(e) for e in lowered.func.params[-1].ty.shape)
    image = got.reshape(n, blocks, height, width, block).transpose(0, 1, 4, 2, 3).reshape(n, -1, height, width)
    return image[:, : workload.output[1]], wanted


@pytest.mark.parametrize("case", BYTES, ids=lambda case: f"{case[0]} {case[1]}")
def test_sums_of_bytes_are_exact(target: Target, case: tuple, tmp_path: Path) -> None:
    algorithm, key, output = case
    got, wanted = run(algorithm, Workload.from_key(f"{key} uint8", output, ("add",)), target, tmp_path)
    assert got.dtype == np.int32
    assert np.array_equal(got, wanted)


@pytest.mark.parametrize("case", FLOATS, ids=lambda case: f"{case[0]} {case[1]}")
def test_float_kernels(case: tuple, tmp_path: Path) -> None:
    target = resolve("cortex-a76")
    if missing_packages(target):
        pytest.skip(f"run scripts/setup_emulators, or apt install {' '.join(missing_packages(target))}")
    algorithm, key, output = case
    got, wanted = run(algorithm, Workload.from_key(f"{key} float32", output, ("add",)), target, tmp_path)
    assert np.abs(got - wanted).max() <= TOLERANCE * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("name", "dtype", "instruction"),
    [
        ("cortex-a76", "float32", r"fmla\tv\d+\.4s, v\d+\.4s, v\d+\.s\[\d\]"),
        ("cortex-a76", "uint8", r"sdot\tv\d+\.4s, v\d+\.16b, v\d+\.4b\[\d\]"),
        ("cortex-a76+i8mm", "uint8", r"su?dot\tv\d+\.4s, v\d+\.16b, v\d+\.4b\[\d\]"),
        ("aarch64-linux-gnu", "uint8", "smlal"),
    ],
)
def test_inner_loops_take_operands_by_element_and_spill_nothing(name: str, dtype: str, instruction: str) -> None:
    target = resolve(name)
    key = f"conv2d 1x64x28x28 96x64x1x1 dilation=1,1 groups=1 padding=0,0,0,0 stride=1,1 {dtype}"
    workload = Workload.from_key(key, (1, 96, 28, 28), ("add",))
    _, lowered = lowered_kernel("spatial_pack", workload, target)
    text = assembly(schedule_group(lowered, target).mod["main"], "kernel", target.tvm())
    assert re.search(instruction, text)
    if instruction != "smlal":
        loop = inner_loop(text)
        found = sum(re.match(instruction, line) is not None for line in loop)
        assert found >= 20, loop
        assert len(loop) <= 1.5 * found, "one more instruction for every two that multiply, at most"
        assert not any("[sp" in line for line in loop), "sums are spilled"
