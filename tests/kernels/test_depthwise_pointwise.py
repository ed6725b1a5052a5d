"""Fused depthwise and pointwise convolution against numpy: ragged bands, long sums, an activation between."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te, tirx
from tvm.s_tir import Schedule

from evo_tvm.kernels.depthwise_pointwise import depthwise_pointwise, pack_pointwise
from evo_tvm.kernels.pack import Packing
from evo_tvm.schedules import depthwise_pointwise as rule
from evo_tvm.schedules.depthwise_pointwise import Config
from evo_tvm.target import host
from tests.kernels._run import Kernel, blocked, plain, relative_error, relu_output, run_in_views
from tests.reference import conv2d

LANES = host().lanes_f32
TOLERANCE = 1e-5
CONFIG = Config(2, 4, 2, 1, 5)


def check(
    n: int,
    channels: int,
    oc: int,
    image: tuple[int, int],
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (1, 1, 1, 1),
    dilation: tuple[int, int] = (1, 1),
    b: int = LANES,
    config: Config = CONFIG,
    threads: int = 1,
    views: bool = False,
) -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal((n, channels, *image)).astype(np.float32)
    first = rng.standard_normal((channels, 1, *kernel)).astype(np.float32)
    bias = rng.standard_normal(channels).astype(np.float32)
    second = rng.standard_normal((oc, channels, 1, 1)).astype(np.float32)
    blocks = -(-channels // b)
    arrays = (
        blocked(x, b, padding),
        Packing("depthwise", (blocks, *kernel, b)).apply(first),
        blocked(bias[None, :, None, None], b).reshape(blocks, b),
        pack_pointwise(second, b, b, config.oc_tile),
    )
    p0, p1, p2, p3 = (te.placeholder(a.shape, name=f"p{i}") for i, a in enumerate(arrays))

    def between(value, _n, c, _h, _w, v):  # type: ignore[no-untyped-def]
        return tirx.min(tirx.max(value + p2[c, v], tirx.const(0, "float32")), tirx.const(6, "float32"))

    stage = depthwise_pointwise(p0, p1, p3, -(-oc // b), stride, dilation, between)
    func = te.create_prim_func([p0, p1, p2, p3, relu_output(stage)])

    def schedule(f: tirx.PrimFunc) -> Schedule:
        return rule.schedule(f, config)

    if views:
        got = run_in_views(func, schedule, host(), *arrays)
    else:
        got = Kernel(schedule(func).mod["main"], host(), threads)(*arrays)
    hidden = conv2d(x, first, stride, padding, dilation, channels) + bias[:, None, None]
    wanted = np.maximum(conv2d(np.clip(hidden, 0, 6), second), 0)
    assert relative_error(plain(got, oc), wanted) < TOLERANCE


CASES = [
    dict(n=1, channels=96, oc=24, image=(16, 16), stride=(2, 2), config=Config(4, 8, 2, 2, 4), threads=2),
    dict(n=1, channels=33, oc=20, image=(9, 11), kernel=(5, 5), padding=(2, 2, 2, 2)),
    dict(n=3, channels=20, oc=40, image=(7, 9), stride=(2, 1), padding=(0, 1, 2, 0), threads=3),
    dict(n=1, channels=16, oc=16, image=(1, 1), config=Config(4, 7, 2, 2, 7)),
    dict(n=1, channels=24, oc=33, image=(8, 8), dilation=(2, 2), config=Config(3, 5, 2, 2, 3)),
    dict(n=1, channels=1300, oc=33, image=(3, 3)),
    dict(n=2, channels=10, oc=9, image=(6, 5), b=4, config=Config(2, 3, 3, 1, 2)),
    dict(n=2, channels=20, oc=40, image=(6, 7), views=True),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(f"{k}{v}" for k, v in c.items() if k != "config"))
def test_the_table(case: dict) -> None:
    check(**case)


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    small = st.integers(1, 3)
    kernel = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)))
    check(
        n=data.draw(st.integers(1, 2)),
        channels=data.draw(st.integers(1, 50)),
        oc=data.draw(st.integers(1, 50)),
        image=tuple(k + data.draw(st.integers(0, 8)) for k in kernel),
        kernel=kernel,
        stride=(data.draw(small), data.draw(small)),
        padding=tuple(data.draw(st.integers(0, 2)) for _ in range(4)),
        config=Config(*(data.draw(st.integers(1, high)) for high in (5, 7, 3, 3, 7))),
    )
