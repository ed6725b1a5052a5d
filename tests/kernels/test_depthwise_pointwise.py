"""Fused depthwise and pointwise convolution against numpy: ragged bands, long sums, an activation between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from tvm import te, tirx

from evo_tvm.kernels.depthwise_pointwise import depthwise_pointwise, pack_pointwise
from evo_tvm.kernels.pack import Packing
from evo_tvm.schedules import depthwise_pointwise as rule
from evo_tvm.schedules.depthwise_pointwise import Config
from tests.kernels._convolution import LANES, SAME, Convolution, any_case, assert_close, normal, table, upto, windows
from tests.kernels._run import blocked
from tests.reference import Padding, conv2d

CONFIG = Config(2, 4, 2, 1, 5)


@dataclass(frozen=True, kw_only=True)
class Case(Convolution):
    padding: Padding = SAME
    block: int = LANES
    config: Config = CONFIG


def check(case: Case) -> None:
    x, first, bias, second = normal(
        (case.n, case.ic, *case.image), (case.ic, 1, *case.kernel), (case.ic,), (case.oc, case.ic, 1, 1)
    )
    block, blocks = case.block, -(-case.ic // case.block)
    arrays = [
        blocked(x, block, case.padding),
        Packing("depthwise", (blocks, *case.kernel, block)).apply(first),
        blocked(bias[None, :, None, None], block).reshape(blocks, block),
        pack_pointwise(second, block, block, case.config.oc_tile),
    ]

    def stage(p0: te.Tensor, p1: te.Tensor, p2: te.Tensor, p3: te.Tensor) -> te.Tensor:
        def between(value, _n, c, _h, _w, v):  # type: ignore[no-untyped-def]
            return tirx.min(tirx.max(value + p2[c, v], tirx.const(0, "float32")), tirx.const(6, "float32"))

        return depthwise_pointwise(p0, p1, p3, -(-case.oc // block), case.stride, case.dilation, between)

    hidden = conv2d(x, first, case.stride, case.padding, case.dilation, case.ic) + bias[:, None, None]
    wanted = conv2d(np.clip(hidden, 0, 6), second)
    assert_close(case, arrays, stage, lambda func: rule.schedule(func, case.config), wanted)


CASES = [
    Case(n=1, ic=96, oc=24, image=(16, 16), stride=(2, 2), config=Config(4, 8, 2, 2, 4), threads=2),
    Case(n=1, ic=33, oc=20, image=(9, 11), kernel=(5, 5), padding=(2, 2, 2, 2)),
    Case(n=3, ic=20, oc=40, image=(7, 9), stride=(2, 1), padding=(0, 1, 2, 0), threads=3),
    Case(n=1, ic=16, oc=16, image=(1, 1), config=Config(4, 7, 2, 2, 7)),
    Case(n=1, ic=24, oc=33, image=(8, 8), dilation=(2, 2), config=Config(3, 5, 2, 2, 3)),
    Case(n=1, ic=1300, oc=33, image=(3, 3)),
    Case(n=2, ic=10, oc=9, image=(6, 5), block=4, config=Config(2, 3, 3, 1, 2)),
    Case(n=2, ic=20, oc=40, image=(6, 7), views=True),
]


@table(CASES)
def test_the_table(case: Case) -> None:
    check(case)


@any_case(
    Case,
    windows(kernel=4),
    ic=upto(50),
    oc=upto(50),
    config=st.builds(Config, upto(5), upto(7), upto(3), upto(3), upto(7)),
)
def test_any_shape(case: Case) -> None:
    check(case)
