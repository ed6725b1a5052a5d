"""Direct convolution of bytes against numpy, exactly: shapes, register tiles, panels of weights, instruction sets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import strategies as st

from evo_tvm.algorithms.spatial_pack import reduction_step
from evo_tvm.kernels.conv2d import conv2d
from evo_tvm.kernels.pack import Packing
from evo_tvm.schedules import common, spatial_pack
from evo_tvm.schedules.spatial_pack import Config
from evo_tvm.target import resolve
from tests import reference
from tests.kernels._bytes import TARGETS, around, assert_sums, in_blocks, on_all_targets, random_bytes
from tests.kernels._convolution import SAME, Convolution, table, upto, windows

TILE = Config(1, 1, 4)


@dataclass(frozen=True, kw_only=True)
class Case(Convolution):
    """zero: the byte around the image. block: of the input; 0 stands for the target's lanes, as of the output."""

    groups: int = 1
    zero: int = 0
    block: int = 0
    config: Config = TILE


def weights_shape(case: Case, ib: int, ob: int) -> tuple[int, ...]:
    """The shape in which the algorithm packs the weights."""
    step, config = reduction_step(case.ic // case.groups, ib), case.config
    steps, oc_blocks = -(-(case.ic // case.groups) // step), -(-case.oc // ob)
    chunk = config.depth_chunk or steps
    outer = (-(-oc_blocks // config.oc_tile), steps // chunk)
    return (
        *(outer[::-1] if config.depth_outer else outer),
        *(chunk, *case.kernel, step // 4, config.oc_tile, ob, 4),
    )


def check(target: str, case: Case) -> None:
    lanes = resolve(target).lanes_f32
    block, oc_blocks = case.block or lanes, -(-case.oc // lanes)
    x, w = random_bytes(5, (case.n, case.ic, *case.image), (case.oc, case.ic // case.groups, *case.kernel))
    padded = around(x, case.padding, case.zero)
    packing = Packing("conv2d_by_depth" if case.config.depth_outer else "conv2d", weights_shape(case, block, lanes))
    assert_sums(
        target,
        [in_blocks(padded, block), packing.apply(w)],
        lambda p0, p1: conv2d(
            p0, p1, oc_blocks, case.stride, case.dilation, case.groups, depth_outer=case.config.depth_outer
        ),
        lambda func: spatial_pack.schedule(func, case.config),
        reference.conv2d(padded, w, case.stride, (0, 0, 0, 0), case.dilation, case.groups),
        case.threads,
    )


SMALL = Case(n=1, ic=32, oc=32, image=(7, 9), padding=SAME, zero=113)
#: 16 steps of 16, 8 or 4 channels, or 32, or 64.
DEEP = Case(n=1, ic=256, oc=48, image=(6, 5), padding=SAME, zero=9)
CASES = [
    SMALL,
    Case(n=2, ic=5, oc=7, image=(5, 6), padding=(2, 0, 1, 3), zero=255),
    Case(n=1, ic=3, oc=19, image=(11, 12), kernel=(7, 7), stride=(2, 2), padding=(3, 3, 3, 3), zero=114, block=4),
    Case(n=1, ic=1, oc=1, image=(1, 1), kernel=(1, 1)),
    Case(n=3, ic=33, oc=18, image=(1, 1), padding=SAME, zero=77),
    Case(n=1, ic=24, oc=40, image=(8, 5), kernel=(1, 1), config=Config(2, 1, 3)),
    Case(n=1, ic=20, oc=16, image=(9, 9), kernel=(3, 2), stride=(1, 3), dilation=(2, 1), padding=(0, 1, 3, 0), zero=1),
    Case(n=1, ic=64, oc=32, image=(5, 5), groups=2, padding=SAME, zero=130, config=Config(1, 1, 5)),
    Case(n=2, ic=32, oc=96, image=(4, 6), groups=2, padding=SAME, zero=6, config=Config(1, 2, 3)),
]
CONFIGS = [
    Config(2, 2, 3),
    Config(1, 3, 5, group_rows=3),
    Config(2, 1, 5, group_rows=1, prefetch=True),
    Config(1, 1, 5, depth_chunk=4),
    Config(2, 1, 4, depth_chunk=2, prefetch=True, linear_prefetch=True),
    Config(1, 2, 5, group_rows=2, depth_chunk=8),
    Config(2, 1, 5, depth_chunk=4, depth_outer=True),
    Config(1, 2, 3, group_rows=6, depth_chunk=1, depth_outer=True, prefetch=True, linear_prefetch=True),
]


@pytest.mark.parametrize("target", TARGETS)
@table(CASES)
def test_the_table(target: str, case: Case) -> None:
    check(target, case)


@pytest.mark.parametrize("target", TARGETS[::2])
@pytest.mark.parametrize("config", CONFIGS, ids=repr)
def test_every_way_round_the_loops(target: str, config: Config) -> None:
    check(target, replace(DEEP, config=config))


@pytest.mark.parametrize("config", CONFIGS[::3], ids=repr)
def test_threads(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "PARALLEL_WORK", 1)
    check("host", replace(DEEP, n=2, threads=3, config=config))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("weight", [-128, 127])
def test_the_largest_sums(target: str, weight: int) -> None:
    """Pairs of products do not fit 16 bits, the sums of 18,432 of them fit 32."""
    lanes = resolve(target).lanes_f32
    case = replace(SMALL, ic=2048, oc=4, image=(3, 3), zero=255)
    x = np.full((1, 2048, 3, 3), 255, np.uint8)
    w = np.full((4, 2048, 3, 3), weight, np.int8)
    padded = around(x, case.padding, case.zero)
    assert_sums(
        target,
        [in_blocks(padded, lanes), Packing("conv2d", weights_shape(case, lanes, lanes)).apply(w)],
        lambda p0, p1: conv2d(p0, p1, 1, (1, 1), (1, 1)),
        lambda func: spatial_pack.schedule(func, case.config),
        np.full((1, 4, 3, 3), 255 * weight * 2048 * 9),
    )


@st.composite
def configs(draw: st.DrawFn) -> Config:
    switches = {name: draw(st.booleans()) for name in ("prefetch", "linear_prefetch")}
    return Config(draw(upto(3)), draw(upto(3)), draw(upto(5)), **switches)


@on_all_targets(
    st.builds(
        lambda shape, rest: Case(**shape, **rest),
        windows(dilation=2),
        st.fixed_dictionaries(
            {"ic": upto(40), "oc": upto(40), "zero": st.integers(0, 255), "config": configs()},
        ),
    )
)
def test_any_shape(target: str, case: Case) -> None:
    check(target, case)
