"""im2col and GEMM against numpy: stems with ragged depths, tiles across the ends of rows, long sums, strided views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from evo_tvm.kernels.im2col import im2col_conv2d, pack_im2col
from evo_tvm.schedules import im2col
from evo_tvm.schedules.im2col import Config
from tests.kernels._convolution import LANES, Convolution, any_case, assert_close, normal, table, upto, windows
from tests.kernels._run import blocked
from tests.reference import conv2d

CONFIG = Config(2, 7, 3)


@dataclass(frozen=True, kw_only=True)
class Case(Convolution):
    ib: int = LANES
    ob: int = LANES
    config: Config = CONFIG


def check(case: Case) -> None:
    x, w = normal((case.n, case.ic, *case.image), (case.oc, case.ic, *case.kernel))
    assert_close(
        case,
        [blocked(x, case.ib, case.padding), pack_im2col(w, case.ib, case.ob, case.config.oc_tile)],
        lambda p0, p1: im2col_conv2d(p0, p1, -(-case.oc // case.ob), case.kernel, case.stride, case.dilation),
        lambda func: im2col.schedule(func, case.config),
        conv2d(x, w, case.stride, case.padding, case.dilation),
    )


CASES = [
    Case(n=1, ic=3, oc=64, image=(26, 30), kernel=(7, 7), stride=(2, 2), padding=(3, 3, 3, 3), ib=1),
    Case(n=1, ic=3, oc=20, image=(17, 13), kernel=(3, 3), stride=(2, 2), padding=(0, 1, 1, 0), ib=1, threads=2),
    Case(n=3, ic=5, oc=33, image=(7, 9), kernel=(3, 2), padding=(1, 0, 1, 1), config=Config(2, 5, 4)),
    Case(n=1, ic=20, oc=24, image=(1, 1), kernel=(3, 3), padding=(1, 1, 1, 1)),
    Case(n=2, ic=3, oc=8, image=(7, 9), kernel=(3, 3), dilation=(2, 2), padding=(2, 2, 2, 2), ib=1),
    Case(n=1, ic=16, oc=40, image=(5, 5), kernel=(3, 3), padding=(1, 1, 1, 1), config=Config(2, 13, 2)),
    Case(n=1, ic=300, oc=16, image=(5, 3), kernel=(3, 3), padding=(1, 1, 1, 1), threads=2),
    Case(n=2, ic=600, oc=40, image=(3, 3), kernel=(3, 1), config=Config(1, 2, 1)),
    Case(n=2, ic=9, oc=10, image=(6, 7), kernel=(3, 3), ib=4, ob=4, config=Config(2, 4, 8), threads=3),
    Case(n=2, ic=20, oc=40, image=(6, 7), kernel=(3, 3), padding=(1, 1, 1, 1), views=True),
]


@table(CASES)
def test_the_table(case: Case) -> None:
    check(case)


@any_case(
    Case,
    windows(dilation=2, spare=9),
    ic=upto(37),
    oc=upto(50),
    ib=st.sampled_from([1, 4, LANES]),
    config=st.builds(Config, upto(3), upto(9), upto(4)),
)
def test_any_shape(case: Case) -> None:
    check(case)


def test_packing_keeps_ragged_depths_whole() -> None:
    w = np.arange(5 * 3 * 2 * 2, dtype=np.float32).reshape(5, 3, 2, 2)
    packed = pack_im2col(w, 1, 4, 1)
    assert packed.shape == (2, 12, 1, 4)
    np.testing.assert_array_equal(packed[0, :, 0, 1], w[1].ravel())
    assert not packed[1, :, 0, 1:].any()
