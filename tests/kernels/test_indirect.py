"""Indirect convolution against numpy: padding without a border, wide dilation, long sums, strided views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import strategies as st

from evo_tvm.errors import CompileError
from evo_tvm.kernels.indirect import indirect_conv2d, indirection, pack_indirect
from evo_tvm.schedules import indirect
from evo_tvm.schedules.indirect import Config
from tests.kernels._convolution import LANES, SAME, Convolution, any_case, assert_close, normal, table, upto, windows
from tests.kernels._run import blocked
from tests.reference import Padding, conv2d

CONFIG = Config(2, 5, 4)
ROW_ABOVE = (1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Case(Convolution):
    border: Padding = ROW_ABOVE
    ib: int = LANES
    ob: int = LANES
    config: Config = CONFIG


def check(case: Case) -> None:
    x, w = normal((case.n, case.ic, *case.image), (case.oc, case.ic, *case.kernel))
    wanted = conv2d(x, w, case.stride, case.padding, case.dilation)
    assert_close(
        case,
        [
            blocked(x, case.ib, case.border),
            indirection(case.image, case.kernel, case.stride, case.dilation, case.padding, case.border),
            pack_indirect(w, case.ib, case.ob, case.config.oc_tile),
        ],
        lambda p0, p1, p2: indirect_conv2d(p0, p1, p2, -(-case.oc // case.ob), wanted.shape[2:]),
        lambda func: indirect.schedule(func, case.config),
        wanted,
    )


CASES = [
    Case(n=1, ic=16, oc=40, image=(5, 5), kernel=(3, 3), padding=SAME, config=Config(4, 6, 16)),
    Case(n=1, ic=3, oc=20, image=(17, 13), kernel=(3, 3), stride=(2, 2), padding=(0, 1, 1, 0), ib=1, threads=2),
    Case(n=3, ic=5, oc=33, image=(7, 9), kernel=(3, 2), padding=(1, 0, 1, 1), border=(0, 2, 1, 0)),
    Case(n=1, ic=20, oc=24, image=(1, 1), kernel=(3, 3), padding=SAME),
    Case(n=1, ic=20, oc=24, image=(9, 9), kernel=(3, 3), dilation=(6, 5), padding=(6, 5, 6, 5)),
    Case(n=2, ic=16, oc=16, image=(9, 8), kernel=(3, 3), border=(0, 0, 0, 0)),
    Case(n=1, ic=300, oc=16, image=(5, 3), kernel=(3, 3), padding=SAME, threads=2),
    Case(n=2, ic=9, oc=10, image=(6, 7), kernel=(3, 3), ib=4, ob=4, config=Config(2, 4, 3), threads=3),
    Case(n=2, ic=20, oc=40, image=(6, 7), kernel=(3, 3), padding=SAME, views=True),
    Case(n=1, ic=200, oc=8, image=(4, 4), kernel=(3, 3), padding=SAME, views=True),
]


@table(CASES)
def test_the_table(case: Case) -> None:
    check(case)


@any_case(
    Case,
    windows(dilation=3, spare=7, padding=3),
    ic=upto(37),
    oc=upto(50),
    border=st.sampled_from([ROW_ABOVE, (0, 1, 0, 0), (2, 1, 0, 3)]),
    ib=st.sampled_from([1, 4, LANES]),
    config=st.builds(Config, upto(3), upto(7), st.sampled_from([1, 4, 16])),
)
def test_any_shape(case: Case) -> None:
    check(case)


def test_the_table_of_places() -> None:
    table = indirection((2, 3), (1, 3), (1, 1), (1, 1), (0, 1, 0, 1), ROW_ABOVE)
    assert table.dtype == np.int32 and table.shape == (6, 3, 2)
    np.testing.assert_array_equal(table[0], [[0, 0], [1, 0], [1, 1]])  # left of the image: the zeros
    np.testing.assert_array_equal(table[4], [[2, 0], [2, 1], [2, 2]])


def test_padding_without_zeros_is_refused() -> None:
    with pytest.raises(CompileError, match="border of one row"):
        indirection((4, 4), (3, 3), (1, 1), (1, 1), SAME, (0, 0, 1, 1))
