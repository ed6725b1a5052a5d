"""Kernels for RISC-V under an emulator against numpy: bytes exactly, float32 to rounding; awkward shapes, each width of
vectors and none, configured by the analytic rule."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from tvm import te, tirx
from tvm.s_tir import Schedule

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.algorithms.spatial_pack import reduction_step
from evo_tvm.bench.emulated_kernel import EmulatedKernel
from evo_tvm.bench.emulator import missing_packages
from evo_tvm.executor.codegen import assembly
from evo_tvm.kernels.conv2d import conv2d, depthwise_conv2d
from evo_tvm.kernels.dense import dense, dense_dot
from evo_tvm.kernels.depthwise_dot import columns_read, depthwise_dot, pack_depthwise_dot
from evo_tvm.kernels.pack import TRANSFORMS, Packing
from evo_tvm.kernels.winograd import transformed_shape, winograd_conv2d
from evo_tvm.target import Target, resolve
from evo_tvm.workload import Workload
from tests import reference
from tests.kernels._bytes import around, bits, in_blocks, random_bytes
from tests.kernels._run import blocked, plain, relative_error, relu_output

TARGETS = {"no vectors": "riscv64-linux-gnu", "128 bits": "rv64gcv", "256 bits": "rv64gcv+zvl256b"}
SAME = (1, 1, 1, 1)
TOLERANCE = 1e-5


@pytest.fixture(params=TARGETS.values(), ids=TARGETS.keys())
def target(request: pytest.FixtureRequest) -> Target:
    found = resolve(request.param)
    if missing_packages(found):
        pytest.skip(f"run scripts/setup_emulators, or apt install {' '.join(missing_packages(found))}")
    return found


def placeholders(arrays: Sequence[np.ndarray]) -> list[te.Tensor]:
    return [te.placeholder(a.shape, str(a.dtype), name=f"p{i}") for i, a in enumerate(arrays)]


def run(
    target: Target,
    folder: Path,
    arrays: Sequence[np.ndarray],
    output: Callable[..., te.Tensor],
    schedule: Callable[[tirx.PrimFunc], Schedule],
) -> np.ndarray:
    """The emulated kernel of the stage "output" of placeholders for `arrays`."""
    operands = placeholders(arrays)
    func = te.create_prim_func([*operands, output(*operands)])
    return EmulatedKernel(schedule(func).mod["main"], target, folder)(*arrays)


def normal(*shapes: Sequence[int]) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def workload(
    data: Sequence[int], weight: Sequence[int], output: Sequence[int], dtype: str = "float32", **attrs: object
) -> Workload:
    operator = "depthwise_conv2d" if weight[1] == 1 and data[1] > 1 else "conv2d"
    sizes = {"dilation": (1, 1), "groups": (1,), "padding": (0, 0, 0, 0), "stride": (1, 1), **attrs}
    return Workload(operator, (tuple(data), tuple(weight)), tuple(output), tuple(sorted(sizes.items())), dtype)


CONVOLUTIONS = [
    # channels in, out, image, kernel, stride, dilation, padding
    (3, 19, (9, 11), (7, 7), (2, 2), (1, 1), (3, 3, 3, 3)),
    (33, 40, (5, 9), (3, 3), (1, 1), (1, 1), SAME),
    (16, 32, (7, 7), (1, 1), (2, 2), (1, 1), (0, 0, 0, 0)),
    (5, 7, (6, 8), (3, 2), (1, 3), (2, 1), (2, 0, 1, 3)),
]


def packed_shape(
    target: Target, w: np.ndarray, block: int, oc_tile: int, depth_chunk: int, four: int
) -> tuple[int, ...]:
    oc, ic, *kernel = w.shape
    step, lanes = reduction_step(ic, block), target.lanes_f32
    steps, blocks = -(-ic // step), -(-oc // lanes)
    chunk = depth_chunk or steps
    shape = (-(-blocks // oc_tile), steps // chunk, chunk, *kernel, step // four, oc_tile, lanes)
    return (*shape, 4) if four == 4 else shape


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_direct_convolution(target: Target, dtype: str, case: tuple, tmp_path: Path) -> None:
    ic, oc, image, kernel, stride, dilation, padding = case
    lanes = target.lanes_f32
    shapes = (1, ic, *image), (oc, ic, *kernel)
    x, w = normal(*shapes) if dtype == "float32" else random_bytes(5, *shapes)
    x = around(x, padding, 113 if dtype == "uint8" else 0)
    wanted = reference.conv2d(x, w, stride, (0, 0, 0, 0), dilation)
    algorithm = ALGORITHMS["conv2d"]["spatial_pack"]
    key = workload(x.shape, w.shape, wanted.shape, dtype, stride=stride, dilation=dilation)
    config = algorithm.default(key, target, 1)
    if dtype == "uint8":
        block, four, output = (4 if ic <= 4 else lanes), 4, bits
        data = in_blocks(x, block)
    else:
        block, four, output = (1 if ic <= 4 else lanes), 1, relu_output
        data = blocked(x, block)
    weight = Packing("conv2d", packed_shape(target, w, block, config.oc_tile, config.depth_chunk, four)).apply(w)
    got = run(
        target,
        tmp_path,
        [data, weight],
        lambda p0, p1: output(conv2d(p0, p1, -(-oc // lanes), stride, dilation)),
        lambda func: algorithm.schedule(func, config, target),
    )
    if dtype == "uint8":
        assert np.array_equal(plain(got.view(np.int32), oc), wanted)
    else:
        assert relative_error(plain(got, oc), np.maximum(wanted, 0)) < TOLERANCE


def test_the_largest_sums_of_bytes(target: Target, tmp_path: Path) -> None:
    """Pairs of products do not fit 16 bits, the sums of 4,608 of them fit 32."""
    lanes = target.lanes_f32
    x, w = np.full((1, 512, 3, 3), 255, np.uint8), np.full((4, 512, 3, 3), -128, np.int8)
    weight = Packing("conv2d", packed_shape(target, w, lanes, 1, 0, 4)).apply(w)
    algorithm = ALGORITHMS["conv2d"]["spatial_pack"]
    got = run(
        target,
        tmp_path,
        [in_blocks(x, lanes), weight],
        lambda p0, p1: bits(conv2d(p0, p1, 1, (1, 1), (1, 1))),
        lambda func: algorithm.schedule(func, algorithm.config_type(1, 1, 1), target),
    )
    assert np.array_equal(plain(got.view(np.int32), 4), np.full((1, 4, 1, 1), 255 * -128 * 512 * 9))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_winograd(target: Target, name: str, tmp_path: Path) -> None:
    lanes, algorithm, m = target.lanes_f32, ALGORITHMS["conv2d"][name], TRANSFORMS[name].m
    x, w = normal((1, 2 * lanes, 7, 9), (3 * lanes, 2 * lanes, 3, 3))
    wanted = reference.conv2d(x, w, (1, 1), SAME)
    config = algorithm.default(workload(x.shape, w.shape, wanted.shape, padding=SAME), target, 1)
    down, across = (m * math.ceil(e / m) - e for e in (7, 9))
    data = blocked(x, lanes, (1, 1, 1 + down, 1 + across))
    shape = transformed_shape(3 * lanes, 2 * lanes, TRANSFORMS[name], config.oc_tile * lanes)
    got = run(
        target,
        tmp_path,
        [data, Packing(name, shape).apply(w)],
        lambda p0, p1: relu_output(winograd_conv2d(p0, p1, (7, 9), TRANSFORMS[name], lanes)),
        lambda func: algorithm.schedule(func, config, target),
    )
    assert relative_error(plain(got, 3 * lanes), np.maximum(wanted, 0)) < TOLERANCE


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_depthwise_convolution(target: Target, dtype: str, stride: tuple[int, int], tmp_path: Path) -> None:
    lanes, name = target.lanes_f32, "depthwise" if dtype == "float32" else "depthwise_dot"
    shapes = (1, 19, 9, 11), (19, 1, 3, 3)
    x, w = normal(*shapes) if dtype == "float32" else random_bytes(6, *shapes)
    x = around(x, SAME, 77 if dtype == "uint8" else 0)
    wanted = reference.depthwise_conv2d(x, w, stride)
    image = wanted.shape[2:]
    algorithm = ALGORITHMS["depthwise_conv2d"][name]
    config = algorithm.default(workload(x.shape, w.shape, wanted.shape, dtype, stride=stride), target, 1)
    if dtype == "float32":
        data, weight = blocked(x, lanes), Packing("depthwise", (-(-19 // lanes), 3, 3, lanes)).apply(w)

        def output(p0: te.Tensor, p1: te.Tensor) -> te.Tensor:
            return relu_output(depthwise_conv2d(p0, p1, stride, (1, 1)))
    else:
        spare = columns_read(image[1], 3, stride[1]) - x.shape[3]
        data = in_blocks(around(x, (0, 0, 0, max(spare, 0)), 255), lanes)
        weight = np.ascontiguousarray(pack_depthwise_dot(w, lanes, stride[1]))

        def output(p0: te.Tensor, p1: te.Tensor) -> te.Tensor:
            return bits(depthwise_dot(p0, p1, image, stride, 1))

    got = run(target, tmp_path, [data, weight], output, lambda func: algorithm.schedule(func, config, target))
    if dtype == "uint8":
        assert np.array_equal(plain(got.view(np.int32), 19), wanted)
    else:
        assert relative_error(plain(got, 19), np.maximum(wanted, 0)) < TOLERANCE


@pytest.mark.parametrize(("m", "k", "n"), [(1, 37, 90), (7, 33, 29)])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_dense(target: Target, dtype: str, m: int, k: int, n: int, tmp_path: Path) -> None:
    lanes, four = target.lanes_f32, 4 if dtype == "uint8" else 1
    x, w = normal((m, k), (k, n)) if dtype == "float32" else random_bytes(3, (m, k), (k, n))
    algorithm = ALGORITHMS["dense"]["dense"]
    config = algorithm.default(Workload("dense", ((m, k), (k, n)), (m, n), (), dtype), target, 1)
    panels, steps = -(-n // lanes), -(-k // four)
    shape = (-(-panels // config.panel_tile), steps // config.depth_chunk, config.depth_chunk, config.panel_tile, lanes)
    packed = Packing("dense", (*shape, 4) if four == 4 else shape).apply(w)

    def output(p0: te.Tensor, p1: te.Tensor) -> te.Tensor:
        product = (dense_dot if four == 4 else dense)(p0, p1, panels)

        def element(i: tirx.Var, j: tirx.Var) -> tirx.Expr:
            value = product[i, j // lanes, j % lanes]
            return tirx.reinterpret("float32", value) if four == 4 else value

        return te.compute((m, n), element, name="output")

    got = run(target, tmp_path, [x, packed], output, lambda func: algorithm.schedule(func, config, target))
    if dtype == "uint8":
        assert np.array_equal(got.view(np.int32), x.astype(np.int32) @ w.astype(np.int32))
    else:
        assert relative_error(got, x.astype(np.float64) @ w) < TOLERANCE


def test_weights_are_loaded_together_and_nothing_is_spilled() -> None:
    """The inner loop of a direct convolution: 8 steps of 28 multiply-adds, a number from memory for each pixel, four
    registers of weights at a time, and no other memory but for the results."""
    target = resolve("rv64gcv+zvl256b")
    algorithm = ALGORITHMS["conv2d"]["spatial_pack"]
    config = algorithm.config_type(4, 1, 7)
    operands = placeholders([np.zeros((1, 8, 9, 9, 8), np.float32), np.zeros((2, 1, 8, 3, 3, 8, 4, 8), np.float32)])
    func = te.create_prim_func([*operands, relu_output(conv2d(*operands, 8, (1, 1), (1, 1)))])
    text = assembly(algorithm.schedule(func, config, target).mod["main"], "kernel", target.tvm())
    words = re.findall(r"^\t([a-z0-9.]+)\t", text, re.MULTILINE)
    steps = words.count("vl4re32.v")
    assert steps % 8 == 0 and steps > 0
    assert words.count("vfmacc.vf") == 28 * steps and words.count("flw") == 7 * steps
    assert sum(word.startswith(("vle", "vl1r", "vl2r")) for word in words) == 0
    assert sum(word.startswith(("vs1r", "vs2r", "vs4r", "vse32")) for word in words) == 28


def test_pixels_that_steps_share_are_loaded_once_and_nothing_is_spilled() -> None:
    """The first convolution of a ResNet: seven steps of stride 2 read 19 numbers for seven pixels."""
    target = resolve("rv64gcv+zvl256b")
    algorithm = ALGORITHMS["conv2d"]["spatial_pack"]
    operands = placeholders([np.zeros((1, 3, 21, 33, 1), np.float32), np.zeros((2, 1, 3, 7, 7, 1, 4, 8), np.float32)])
    func = te.create_prim_func([*operands, relu_output(conv2d(*operands, 8, (2, 2), (1, 1)))])
    text = assembly(algorithm.schedule(func, algorithm.config_type(4, 1, 7), target).mod["main"], "k", target.tvm())
    words = re.findall(r"^\t([a-z0-9.]+)\t", text, re.MULTILINE)
    assert (words.count("vfmacc.vf"), words.count("flw"), words.count("vl4re32.v")) == (7 * 28, 19, 7)
    assert sum(word.startswith(("vle", "vl1r", "vl2r")) for word in words) == 0
    assert sum(word.startswith(("vs1r", "vs2r", "vs4r", "vse32")) for word in words) == 28


def test_bytes_widen_and_add_up_in_one_instruction() -> None:
    target = resolve("rv64gcv+zvl256b")
    algorithm = ALGORITHMS["conv2d"]["spatial_pack"]
    operands = placeholders([np.zeros((1, 8, 9, 9, 8), np.uint8), np.zeros((4, 1, 8, 3, 3, 2, 2, 8, 4), np.int8)])
    func = te.create_prim_func([*operands, bits(conv2d(*operands, 8, (1, 1), (1, 1)))])
    text = assembly(
        algorithm.schedule(func, algorithm.config_type(2, 1, 7), target).mod["main"], "kernel", target.tvm()
    )
    words = re.findall(r"^\t([a-z0-9.]+)\t", text, re.MULTILINE)
    assert words.count("vwmacc.vx") == 4 * 14 * (words.count("lbu") // 28)
    assert not [word for word in words if re.match(r"vmul|vadd|vmacc|vwmul", word)]
