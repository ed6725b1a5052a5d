"""Transposed convolution against numpy's scattered sums: every stride, output padding, sizes that no stride divides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from evo_tvm.kernels.transposed import border, pack_transposed, transposed_conv2d
from evo_tvm.schedules import transposed
from evo_tvm.schedules.transposed import Config
from tests.kernels._convolution import LANES, SAME, Convolution, any_case, assert_close, normal, pairs, table, upto
from tests.kernels._run import blocked
from tests.reference import Pair, conv2d_transpose

CONFIG = Config(2, 1, 5)


@dataclass(frozen=True, kw_only=True)
class Case(Convolution):
    stride: Pair = (2, 2)
    output_padding: Pair = (0, 0)
    ib: int = LANES
    ob: int = LANES
    config: Config = CONFIG

    @property
    def out_size(self) -> Pair:
        reach = [
            (size - 1) * s + d * (k - 1) + 1
            for size, s, d, k in zip(self.image, self.stride, self.dilation, self.kernel, strict=True)
        ]
        height, width = (max(1, reach[a] + self.output_padding[a] - sum(self.padding[a::2])) for a in range(2))
        return height, width


def check(case: Case) -> None:
    x, w = normal((case.n, case.ic, *case.image), (case.ic, case.oc, *case.kernel))
    cut, size = case.padding[:2], case.out_size
    assert_close(
        case,
        [
            blocked(x, case.ib, border(case.image, case.kernel, case.stride, case.dilation, cut, size)),
            pack_transposed(w, case.stride, cut, case.ib, case.ob, case.config.oc_tile),
        ],
        lambda p0, p1: transposed_conv2d(p0, p1, -(-case.oc // case.ob), case.kernel, case.dilation, cut, size),
        lambda func: transposed.schedule(func, case.stride, case.config),
        conv2d_transpose(x, w, case.stride, case.dilation, cut, size),
    )


CASES = [
    Case(n=1, ic=20, oc=40, image=(7, 7), kernel=(4, 4), padding=SAME, config=Config(2, 1, 7), threads=2),
    Case(n=1, ic=16, oc=16, image=(7, 7), kernel=(2, 2), threads=3),
    Case(n=1, ic=16, oc=33, image=(6, 5), kernel=(3, 3), padding=SAME, output_padding=(1, 1)),
    Case(n=1, ic=16, oc=33, image=(6, 5), kernel=(3, 3), padding=SAME, threads=2),
    Case(n=2, ic=16, oc=40, image=(6, 5), kernel=(3, 3), padding=(0, 1, 1, 0)),
    Case(n=1, ic=16, oc=16, image=(9, 8), kernel=(3, 3), stride=(1, 1), padding=SAME),
    Case(n=3, ic=20, oc=33, image=(5, 7), kernel=(3, 2), stride=(3, 1), padding=(1, 0, 1, 0), output_padding=(2, 0)),
    Case(n=1, ic=20, oc=33, image=(1, 1), kernel=(5, 4), stride=(2, 3), padding=SAME, output_padding=(1, 0)),
    Case(n=1, ic=3, oc=8, image=(5, 5), kernel=(1, 1)),
    Case(n=1, ic=320, oc=20, image=(4, 6), kernel=(4, 4), padding=SAME, threads=2),
    Case(n=1, ic=320, oc=20, image=(4, 6), kernel=(4, 3), padding=SAME, threads=2),
    Case(n=1, ic=3, oc=8, image=(5, 6), kernel=(3, 3), stride=(1, 1), dilation=(2, 3), padding=(1, 0, 1, 0), ib=1),
    Case(n=1, ic=16, oc=8, image=(9, 9), kernel=(9, 3), padding=(4, 1, 4, 1), output_padding=(1, 1)),
    Case(n=1, ic=6, oc=9, image=(5, 4), kernel=(3, 3), padding=(1, 0, 0, 1), ib=4, ob=4, config=Config(3, 2, 2)),
    Case(n=2, ic=20, oc=40, image=(5, 6), kernel=(4, 4), padding=SAME, views=True),
    Case(n=2, ic=20, oc=40, image=(5, 6), kernel=(3, 3), views=True),
]


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, Any]:
    """Padding below the kernel's size, output padding below the stride, dilation where the stride is 1."""
    kernel, stride = draw(pairs(5)), draw(pairs(3))
    return {
        "kernel": kernel,
        "stride": stride,
        "padding": tuple(draw(st.integers(0, k - 1)) for k in (*kernel, *kernel)),
        "output_padding": tuple(draw(st.integers(0, s - 1)) for s in stride),
        "dilation": tuple(draw(upto(2)) if s == 1 else 1 for s in stride),
    }


@table(CASES)
def test_the_table(case: Case) -> None:
    check(case)


@any_case(
    Case,
    shapes(),
    n=upto(2),
    ic=upto(37),
    oc=upto(50),
    image=pairs(7),
    config=st.builds(Config, upto(3), upto(3), upto(7)),
)
def test_any_shape(case: Case) -> None:
    check(case)
