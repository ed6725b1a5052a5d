"""Indirect convolution against numpy: padding without a border, wide dilation, long sums, strided views."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te, tirx
from tvm.s_tir import Schedule

from evo_tvm.errors import CompileError
from evo_tvm.kernels.indirect import indirect_conv2d, indirection, pack_indirect
from evo_tvm.schedules import indirect
from evo_tvm.schedules.indirect import Config
from evo_tvm.target import host
from tests.kernels._run import Kernel, blocked, plain, relative_error, relu_output, run_in_views
from tests.reference import conv2d

LANES = host().lanes_f32
TOLERANCE = 1e-5
CONFIG = Config(2, 5, 4)
ROW_ABOVE = (1, 0, 0, 0)


def check(
    n: int,
    ic: int,
    oc: int,
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    border: tuple[int, int, int, int] = ROW_ABOVE,
    ib: int = LANES,
    ob: int = LANES,
    config: Config = CONFIG,
    threads: int = 1,
    views: bool = False,
) -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal((n, ic, *image)).astype(np.float32)
    w = rng.standard_normal((oc, ic, *kernel)).astype(np.float32)
    wanted = np.maximum(conv2d(x, w, stride, padding, dilation), 0)
    data, packed = blocked(x, ib, border), pack_indirect(w, ib, ob, config.oc_tile)
    table = indirection(image, kernel, stride, dilation, padding, border)
    p0, p2 = te.placeholder(data.shape, name="p0"), te.placeholder(packed.shape, name="p2")
    p1 = te.placeholder(table.shape, "int32", name="p1")
    stage = indirect_conv2d(p0, p1, p2, -(-oc // ob), wanted.shape[2:])
    func = te.create_prim_func([p0, p1, p2, relu_output(stage)])

    def schedule(f: tirx.PrimFunc) -> Schedule:
        return indirect.schedule(f, config)

    if views:
        got = run_in_views(func, schedule, host(), data, table, packed)
    else:
        got = Kernel(schedule(func).mod["main"], host(), threads)(data, table, packed)
    assert relative_error(plain(got, oc), wanted) < TOLERANCE


SAME = (1, 1, 1, 1)
CASES = [
    dict(n=1, ic=16, oc=40, image=(5, 5), kernel=(3, 3), padding=SAME, config=Config(4, 6, 16)),
    dict(n=1, ic=3, oc=20, image=(17, 13), kernel=(3, 3), stride=(2, 2), padding=(0, 1, 1, 0), ib=1, threads=2),
    dict(n=3, ic=5, oc=33, image=(7, 9), kernel=(3, 2), padding=(1, 0, 1, 1), border=(0, 2, 1, 0)),
    dict(n=1, ic=20, oc=24, image=(1, 1), kernel=(3, 3), padding=SAME),
    dict(n=1, ic=20, oc=24, image=(9, 9), kernel=(3, 3), dilation=(6, 5), padding=(6, 5, 6, 5)),
    dict(n=2, ic=16, oc=16, image=(9, 8), kernel=(3, 3), border=(0, 0, 0, 0)),
    dict(n=1, ic=300, oc=16, image=(5, 3), kernel=(3, 3), padding=SAME, threads=2),
    dict(n=2, ic=9, oc=10, image=(6, 7), kernel=(3, 3), ib=4, ob=4, config=Config(2, 4, 3), threads=3),
    dict(n=2, ic=20, oc=40, image=(6, 7), kernel=(3, 3), padding=SAME, views=True),
    dict(n=1, ic=200, oc=8, image=(4, 4), kernel=(3, 3), padding=SAME, views=True),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(f"{k}{v}" for k, v in c.items() if k != "config"))
def test_the_table(case: dict) -> None:
    check(**case)


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    small = st.integers(1, 3)
    kernel = (data.draw(small), data.draw(small))
    dilation = (data.draw(small), data.draw(small))
    check(
        n=data.draw(st.integers(1, 2)),
        ic=data.draw(st.integers(1, 37)),
        oc=data.draw(st.integers(1, 50)),
        image=tuple(d * (k - 1) + 1 + data.draw(st.integers(0, 7)) for d, k in zip(dilation, kernel, strict=True)),
        kernel=kernel,
        stride=(data.draw(small), data.draw(small)),
        dilation=dilation,
        padding=tuple(data.draw(st.integers(0, 3)) for _ in range(4)),
        border=data.draw(st.sampled_from([ROW_ABOVE, (0, 1, 0, 0), (2, 1, 0, 3)])),
        ib=data.draw(st.sampled_from([1, 4, LANES])),
        config=Config(data.draw(small), data.draw(st.integers(1, 7)), data.draw(st.sampled_from([1, 4, 16]))),
    )


def test_the_table_of_places() -> None:
    table = indirection((2, 3), (1, 3), (1, 1), (1, 1), (0, 1, 0, 1), ROW_ABOVE)
    assert table.dtype == np.int32 and table.shape == (6, 3, 2)
    np.testing.assert_array_equal(table[0], [[0, 0], [1, 0], [1, 1]])  # left of the image: the zeros
    np.testing.assert_array_equal(table[4], [[2, 0], [2, 1], [2, 2]])


def test_padding_without_zeros_is_refused() -> None:
    with pytest.raises(CompileError, match="border of one row"):
        indirection((4, 4), (3, 3), (1, 1), (1, 1), SAME, (0, 0, 1, 1))
