"""im2col and GEMM against numpy: stems with ragged depths, tiles across the ends of rows, long sums, strided views."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te, tirx
from tvm.s_tir import Schedule

from evo_tvm.kernels.im2col import im2col_conv2d, pack_im2col
from evo_tvm.schedules import im2col
from evo_tvm.schedules.im2col import Config
from evo_tvm.target import host
from tests.kernels._run import Kernel, blocked, plain, relative_error, relu_output, run_in_views
from tests.reference import conv2d

LANES = host().lanes_f32
TOLERANCE = 1e-5
CONFIG = Config(2, 7, 3)


def check(
    n: int,
    ic: int,
    oc: int,
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    ib: int = LANES,
    ob: int = LANES,
    config: Config = CONFIG,
    threads: int = 1,
    views: bool = False,
) -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal((n, ic, *image)).astype(np.float32)
    w = rng.standard_normal((oc, ic, *kernel)).astype(np.float32)
    data, packed = blocked(x, ib, padding), pack_im2col(w, ib, ob, config.oc_tile)
    p0, p1 = te.placeholder(data.shape, name="p0"), te.placeholder(packed.shape, name="p1")
    out = relu_output(im2col_conv2d(p0, p1, -(-oc // ob), kernel, stride, dilation))
    func = te.create_prim_func([p0, p1, out])
    wanted = np.maximum(conv2d(x, w, stride, padding, dilation), 0)

    def schedule(f: tirx.PrimFunc) -> Schedule:
        return im2col.schedule(f, config)

    if views:
        got = run_in_views(func, schedule, host(), data, packed)
    else:
        got = Kernel(schedule(func).mod["main"], host(), threads)(data, packed)
    assert relative_error(plain(got, oc), wanted) < TOLERANCE


CASES = [
    dict(n=1, ic=3, oc=64, image=(26, 30), kernel=(7, 7), stride=(2, 2), padding=(3, 3, 3, 3), ib=1),
    dict(n=1, ic=3, oc=20, image=(17, 13), kernel=(3, 3), stride=(2, 2), padding=(0, 1, 1, 0), ib=1, threads=2),
    dict(n=3, ic=5, oc=33, image=(7, 9), kernel=(3, 2), padding=(1, 0, 1, 1), config=Config(2, 5, 4)),
    dict(n=1, ic=20, oc=24, image=(1, 1), kernel=(3, 3), padding=(1, 1, 1, 1)),
    dict(n=2, ic=3, oc=8, image=(7, 9), kernel=(3, 3), dilation=(2, 2), padding=(2, 2, 2, 2), ib=1),
    dict(n=1, ic=16, oc=40, image=(5, 5), kernel=(3, 3), padding=(1, 1, 1, 1), config=Config(2, 13, 2)),
    dict(n=1, ic=300, oc=16, image=(5, 3), kernel=(3, 3), padding=(1, 1, 1, 1), threads=2),
    dict(n=2, ic=600, oc=40, image=(3, 3), kernel=(3, 1), config=Config(1, 2, 1)),
    dict(n=2, ic=9, oc=10, image=(6, 7), kernel=(3, 3), ib=4, ob=4, config=Config(2, 4, 8), threads=3),
    dict(n=2, ic=20, oc=40, image=(6, 7), kernel=(3, 3), padding=(1, 1, 1, 1), views=True),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(f"{k}{v}" for k, v in c.items() if k != "config"))
def test_the_table(case: dict) -> None:
    check(**case)


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    small = st.integers(1, 3)
    kernel = (data.draw(small), data.draw(small))
    dilation = (data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2)))
    extra = st.integers(0, 9)
    check(
        n=data.draw(st.integers(1, 2)),
        ic=data.draw(st.integers(1, 37)),
        oc=data.draw(st.integers(1, 50)),
        image=tuple(d * (k - 1) + 1 + data.draw(extra) for d, k in zip(dilation, kernel, strict=True)),
        kernel=kernel,
        stride=(data.draw(small), data.draw(small)),
        dilation=dilation,
        padding=tuple(data.draw(st.integers(0, 2)) for _ in range(4)),
        ib=data.draw(st.sampled_from([1, 4, LANES])),
        config=Config(data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9)), data.draw(st.integers(1, 4))),
    )


def test_packing_keeps_ragged_depths_whole() -> None:
    w = np.arange(5 * 3 * 2 * 2, dtype=np.float32).reshape(5, 3, 2, 2)
    packed = pack_im2col(w, 1, 4, 1)
    assert packed.shape == (2, 12, 1, 4)
    np.testing.assert_array_equal(packed[0, :, 0, 1], w[1].ravel())
    assert not packed[1, :, 0, 1:].any()
