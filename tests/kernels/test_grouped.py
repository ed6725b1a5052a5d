"""Grouped convolution against numpy, both ways: groups inside a block, across blocks, channel multipliers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te, tirx
from tvm.s_tir import Schedule

from evo_tvm.executor.codegen import lower
from evo_tvm.kernels.grouped import (
    lanewise_conv2d,
    most_groups_touched,
    pack_lanewise,
    pack_windowed,
    windowed_conv2d,
)
from evo_tvm.schedules import grouped
from evo_tvm.schedules.grouped import Config
from evo_tvm.target import host
from tests.kernels._run import Kernel, blocked, plain, relative_error, relu_output, run_in_views
from tests.reference import conv2d

LANES = host().lanes_f32
TOLERANCE = 1e-5
CONFIG = Config(1, 5, 3)


def make(
    form: str, w: np.ndarray, data: np.ndarray, groups: int, stride: tuple[int, int], dilation: tuple[int, int], b: int
) -> tuple[tirx.PrimFunc, np.ndarray]:
    packed = pack_windowed(w, groups, b) if form == "windowed" else pack_lanewise(w, b)
    p0, p1 = te.placeholder(data.shape, name="p0"), te.placeholder(packed.shape, name="p1")
    conv = windowed_conv2d if form == "windowed" else lanewise_conv2d
    return te.create_prim_func([p0, p1, relu_output(conv(p0, p1, w.shape[0], groups, stride, dilation))]), packed


def check(
    form: str,
    n: int,
    groups: int,
    ic_group: int,
    oc_group: int,
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    block: int = LANES,
    config: Config = CONFIG,
    threads: int = 1,
    views: bool = False,
) -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal((n, groups * ic_group, *image)).astype(np.float32)
    w = rng.standard_normal((groups * oc_group, ic_group, *kernel)).astype(np.float32)
    data = blocked(x, block, padding)
    func, packed = make(form, w, data, groups, stride, dilation, block)

    def schedule(f: tirx.PrimFunc) -> Schedule:
        rule = grouped.schedule_windowed if form == "windowed" else grouped.schedule_lanewise
        return rule(f, config)

    if views:
        got = run_in_views(func, schedule, host(), data, packed)
    else:
        got = Kernel(schedule(func).mod["main"], host(), threads)(data, packed)
    wanted = np.maximum(conv2d(x, w, stride, padding, dilation, groups), 0)
    assert relative_error(plain(got, len(w)), wanted) < TOLERANCE


SAME = (1, 1, 1, 1)
CASES = [
    dict(n=1, groups=32, ic_group=4, oc_group=4, image=(14, 14), kernel=(3, 3), padding=SAME, config=Config(1, 14, 7)),
    dict(n=1, groups=4, ic_group=34, oc_group=34, image=(7, 9), kernel=(1, 1), config=Config(2, 4, 3), threads=2),
    dict(n=1, groups=3, ic_group=2, oc_group=3, image=(7, 7), kernel=(3, 3), padding=SAME),
    dict(n=3, groups=5, ic_group=1, oc_group=3, image=(9, 6), kernel=(5, 3), stride=(2, 1), padding=(2, 0, 1, 2)),
    dict(n=1, groups=24, ic_group=1, oc_group=2, image=(1, 1), kernel=(3, 3), padding=SAME),
    dict(n=1, groups=2, ic_group=10, oc_group=10, image=(8, 8), kernel=(3, 3), dilation=(2, 2), threads=3),
    dict(n=2, groups=6, ic_group=3, oc_group=5, image=(6, 7), kernel=(2, 2), block=4, padding=(1, 0, 0, 1)),
    dict(n=2, groups=7, ic_group=3, oc_group=5, image=(6, 7), kernel=(3, 3), padding=SAME, views=True),
]


@pytest.mark.parametrize("form", ["windowed", "lanewise"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(f"{k}{v}" for k, v in c.items() if k != "config"))
def test_the_table(form: str, case: dict) -> None:
    check(form, **case)


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    small = st.integers(1, 3)
    kernel = (data.draw(small), data.draw(small))
    check(
        data.draw(st.sampled_from(["windowed", "lanewise"])),
        n=data.draw(st.integers(1, 2)),
        groups=data.draw(st.integers(1, 12)),
        ic_group=data.draw(st.integers(1, 7)),
        oc_group=data.draw(st.integers(1, 9)),
        image=tuple(k + data.draw(st.integers(0, 8)) for k in kernel),
        kernel=kernel,
        stride=(data.draw(small), data.draw(small)),
        padding=tuple(data.draw(st.integers(0, 2)) for _ in range(4)),
        block=data.draw(st.sampled_from([4, LANES])),
        config=Config(data.draw(small), data.draw(st.integers(1, 9)), data.draw(st.integers(1, 4))),
    )


def test_blocks_that_touch_one_group_read_no_other() -> None:
    """34 channels a group: of nine blocks of 16 three touch two groups, so the loop over groups has a computed end."""
    w, data = np.zeros((136, 34, 1, 1), np.float32), np.zeros((1, 9, 4, 14, 16), np.float32)
    func, _ = make("windowed", w, data, 4, (1, 1), (1, 1), 16)
    script = lower(grouped.schedule_windowed(func, Config(1, 14)).mod["main"], "kernel", host().tvm()).script()
    assert "if_then_else" not in script and "34) + 15" in script


@pytest.mark.parametrize(
    ("oc", "groups", "touched"), [(128, 32, 4), (256, 32, 2), (136, 4, 2), (256, 128, 8), (544, 4, 2)]
)
def test_the_groups_that_a_block_touches(oc: int, groups: int, touched: int) -> None:
    assert most_groups_touched(oc, groups, 16) == touched
