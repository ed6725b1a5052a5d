"""Transposed convolution against numpy's scattered sums: every stride, output padding, sizes that no stride divides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te, tirx
from tvm.s_tir import Schedule

from evo_tvm.kernels.transposed import border, pack_transposed, transposed_conv2d
from evo_tvm.schedules import transposed
from evo_tvm.schedules.transposed import Config
from evo_tvm.target import host
from tests.kernels._run import Kernel, blocked, plain, relative_error, relu_output, run_in_views
from tests.reference import conv2d_transpose

LANES = host().lanes_f32
TOLERANCE = 1e-5
CONFIG = Config(2, 1, 5)
Pair = tuple[int, int]


def check(
    n: int,
    ic: int,
    oc: int,
    image: Pair,
    kernel: Pair,
    stride: Pair = (2, 2),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    output_padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    ib: int = LANES,
    ob: int = LANES,
    config: Config = CONFIG,
    threads: int = 1,
    views: bool = False,
) -> None:
    out_size = tuple(
        max(1, (image[a] - 1) * stride[a] + dilation[a] * (kernel[a] - 1) + 1 + output_padding[a] - sum(padding[a::2]))
        for a in range(2)
    )
    rng = np.random.default_rng(7)
    x = rng.standard_normal((n, ic, *image)).astype(np.float32)
    w = rng.standard_normal((ic, oc, *kernel)).astype(np.float32)
    cut = padding[:2]
    data = blocked(x, ib, border(image, kernel, stride, dilation, cut, out_size))
    packed = pack_transposed(w, stride, cut, ib, ob, config.oc_tile)
    p0, p1 = te.placeholder(data.shape, name="p0"), te.placeholder(packed.shape, name="p1")
    stage = transposed_conv2d(p0, p1, -(-oc // ob), kernel, dilation, cut, out_size)
    func = te.create_prim_func([p0, p1, relu_output(stage)])

    def schedule(f: tirx.PrimFunc) -> Schedule:
        return transposed.schedule(f, stride, config)

    if views:
        got = run_in_views(func, schedule, host(), data, packed)
    else:
        got = Kernel(schedule(func).mod["main"], host(), threads)(data, packed)
    wanted = np.maximum(conv2d_transpose(x, w, stride, dilation, cut, out_size), 0)
    assert relative_error(plain(got, oc), wanted) < TOLERANCE


SAME = (1, 1, 1, 1)
CASES = [
    dict(n=1, ic=20, oc=40, image=(7, 7), kernel=(4, 4), padding=SAME, config=Config(2, 1, 7), threads=2),
    dict(n=1, ic=16, oc=16, image=(7, 7), kernel=(2, 2), threads=3),
    dict(n=1, ic=16, oc=33, image=(6, 5), kernel=(3, 3), padding=SAME, output_padding=(1, 1)),
    dict(n=1, ic=16, oc=33, image=(6, 5), kernel=(3, 3), padding=SAME, threads=2),
    dict(n=2, ic=16, oc=40, image=(6, 5), kernel=(3, 3), padding=(0, 1, 1, 0)),
    dict(n=1, ic=16, oc=16, image=(9, 8), kernel=(3, 3), stride=(1, 1), padding=SAME),
    dict(n=3, ic=20, oc=33, image=(5, 7), kernel=(3, 2), stride=(3, 1), padding=(1, 0, 1, 0), output_padding=(2, 0)),
    dict(n=1, ic=20, oc=33, image=(1, 1), kernel=(5, 4), stride=(2, 3), padding=SAME, output_padding=(1, 0)),
    dict(n=1, ic=3, oc=8, image=(5, 5), kernel=(1, 1)),
    dict(n=1, ic=320, oc=20, image=(4, 6), kernel=(4, 4), padding=SAME, threads=2),
    dict(n=1, ic=320, oc=20, image=(4, 6), kernel=(4, 3), padding=SAME, threads=2),
    dict(n=1, ic=3, oc=8, image=(5, 6), kernel=(3, 3), stride=(1, 1), dilation=(2, 3), padding=(1, 0, 1, 0), ib=1),
    dict(n=1, ic=16, oc=8, image=(9, 9), kernel=(9, 3), padding=(4, 1, 4, 1), output_padding=(1, 1)),
    dict(n=1, ic=6, oc=9, image=(5, 4), kernel=(3, 3), padding=(1, 0, 0, 1), ib=4, ob=4, config=Config(3, 2, 2)),
    dict(n=2, ic=20, oc=40, image=(5, 6), kernel=(4, 4), padding=SAME, views=True),
    dict(n=2, ic=20, oc=40, image=(5, 6), kernel=(3, 3), views=True),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(f"{k}{v}" for k, v in c.items() if k != "config"))
def test_the_table(case: dict) -> None:
    check(**case)


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    kernel = (data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5)))
    stride = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    check(
        n=data.draw(st.integers(1, 2)),
        ic=data.draw(st.integers(1, 37)),
        oc=data.draw(st.integers(1, 50)),
        image=(data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))),
        kernel=kernel,
        stride=stride,
        padding=tuple(data.draw(st.integers(0, k - 1)) for k in (*kernel, *kernel)),
        output_padding=tuple(data.draw(st.integers(0, s - 1)) for s in stride),
        dilation=tuple(data.draw(st.integers(1, 2)) if s == 1 else 1 for s in stride),
        config=Config(data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)), data.draw(st.integers(1, 7))),
    )
