"""Winograd convolution of bytes against numpy, exactly: shapes, schedules, instruction sets, the largest numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import strategies as st

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.decide import decide
from evo_tvm.kernels.pack import Packing
from evo_tvm.kernels.winograd import F2, MOST_CHANNELS_OF_BYTES, pair_shape, winograd_conv2d
from evo_tvm.schedules import common, winograd
from evo_tvm.schedules.winograd import Config
from evo_tvm.target import resolve
from evo_tvm.tune.log import Log
from evo_tvm.workload import Workload
from tests import reference
from tests.kernels._bytes import TARGETS, around, assert_sums, in_blocks, on_all_targets, random_bytes

TILE = Config(1, 1, 1, 2)


@dataclass(frozen=True)
class Case:
    """Blocks of input and output channels, the size of the result, the byte around the image."""

    n: int
    ic_blocks: int
    oc_blocks: int
    out: tuple[int, int]
    zero: int = 0
    config: Config = TILE
    threads: int = 1


def check(target: str, case: Case, x: np.ndarray, w: np.ndarray) -> None:
    """x: the image and its border of one; w: (OC, IC, 3, 3)."""
    lanes = resolve(target).lanes_f32
    whole = [-(-e // 2) * 2 for e in case.out]
    data = around(x, (0, 0, whole[0] - case.out[0], whole[1] - case.out[1]), case.zero)
    packing = Packing("winograd2_bytes", pair_shape(w.shape[0], w.shape[1], case.config.oc_tile * lanes))
    assert_sums(
        target,
        [in_blocks(data, lanes), packing.apply(w)],
        lambda p0, p1: winograd_conv2d(p0, p1, case.out, F2, lanes),
        lambda func: winograd.schedule(func, 2, case.config),
        reference.conv2d(x, w, (1, 1), (0, 0, 0, 0), (1, 1), 1),
        case.threads,
    )


def check_random(target: str, case: Case) -> None:
    lanes = resolve(target).lanes_f32
    height, width = case.out
    ic, oc = case.ic_blocks * lanes, case.oc_blocks * lanes
    x, w = random_bytes(7, (case.n, ic, height, width), (oc, ic, 3, 3))
    check(target, case, around(x, (1, 1, 1, 1), case.zero), w)


SMALL = Case(1, 2, 2, (6, 8), 113)
CASES = [
    SMALL,
    Case(2, 1, 3, (5, 7), 255),
    Case(1, 3, 1, (1, 1), 9),
    Case(1, 2, 4, (7, 9), 0, Config(2, 2, 2, 3, prefetch=True)),
    Case(1, 2, 4, (7, 9), 0, Config(2, 2, 2, 3, prefetch=True, linear_prefetch=True)),
    Case(1, 4, 3, (8, 5), 1, Config(2, 3, 1, 2, by_channels=True)),
    Case(3, 1, 2, (9, 3), 77, Config(5, 1, 2, 1)),
    Case(1, 4, 2, (8, 16), 5, Config(2, 2, 2, 2, spread=True)),
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_table(target: str, case: Case) -> None:
    check_random(target, case)


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "PARALLEL_WORK", 1)
    check_random("host", replace(SMALL, n=2, out=(9, 8), threads=3))
    check_random("host", replace(SMALL, out=(9, 8), threads=3, config=Config(2, 2, 1, 2, by_channels=True)))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("weight", [-128, 127])
def test_the_largest_numbers(target: str, weight: int) -> None:
    """As many channels as it takes, all of them 255, or 255 and 0 in turn so that the transforms are the largest."""
    lanes = resolve(target).lanes_f32
    blocks = MOST_CHANNELS_OF_BYTES // lanes
    ic = blocks * lanes
    rows, columns = np.indices((6, 6))
    w = np.full((lanes, ic, 3, 3), weight, np.int8)
    for image in (np.full((6, 6), 255), (rows + columns) % 2 * 255, (rows // 2 + columns // 2) % 2 * 255):
        x = np.ascontiguousarray(np.broadcast_to(image, (1, ic, 6, 6))).astype(np.uint8)
        check(target, Case(1, blocks, 1, (4, 4)), x, w)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    small = st.integers(1, 3)
    tile, switches = [draw(small) for _ in range(2)], [draw(st.booleans()) for _ in range(4)]
    config = Config(draw(st.integers(1, 4)), 1, *tile, *switches)
    out = (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    return Case(draw(small), draw(small), draw(small), out, draw(st.integers(0, 255)), config)


@on_all_targets(cases())
def test_any_shape(target: str, case: Case) -> None:
    check_random(target, case)


def workload(channels: int, size: int) -> Workload:
    attrs = "dilation=1,1 groups=1 padding=1,1,1,1 stride=1,1"
    key = f"conv2d 1x{channels}x{size}x{size} {channels}x{channels}x3x3 {attrs} uint8"
    return Workload.from_key(key, (1, channels, size, size), ("add", "rescale", "quantize"))


@pytest.mark.parametrize(("channels", "size"), [(64, 56), (128, 28), (256, 14), (512, 7)])
def test_it_is_taken_where_it_is_faster(channels: int, size: int) -> None:
    """On a Cascade Lake it was 1.5 to 3 times as fast with AVX2 and AVX-512, and slower with VNNI, at each size."""
    for target, wanted in (("cascadelake", "spatial_pack"), ("x86-64-v4", "winograd2"), ("x86-64-v3", "winograd2")):
        assert decide(workload(channels, size), resolve(target), 1, Log()).algorithm == wanted


def test_too_many_channels_are_refused() -> None:
    refusal = ALGORITHMS["conv2d"]["winograd2"].refusal(workload(2048, 7), resolve("x86-64-v3"))
    assert refusal is not None and f"more than {MOST_CHANNELS_OF_BYTES} channels" in refusal
    assert math.log2(2 * MOST_CHANNELS_OF_BYTES * 3 * 510 * 3 * 128) <= 31
