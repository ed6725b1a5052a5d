"""Grouped convolution against numpy, both ways: groups inside a block, across blocks, channel multipliers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
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
from tests.kernels._convolution import LANES, SAME, Convolution, any_case, assert_close, normal, table, upto, windows
from tests.kernels._run import blocked, relu_output
from tests.reference import conv2d

CONFIG = Config(1, 5, 3)


@dataclass(frozen=True)
class Form:
    """One of the two kernels of grouped convolution."""

    pack: Callable[[np.ndarray, int, int], np.ndarray]
    stage: Callable[..., te.Tensor]
    schedule: Callable[[tirx.PrimFunc, Config], Schedule]


FORMS = {
    "windowed": Form(pack_windowed, windowed_conv2d, grouped.schedule_windowed),
    "lanewise": Form(lambda w, _groups, block: pack_lanewise(w, block), lanewise_conv2d, grouped.schedule_lanewise),
}


@dataclass(frozen=True, kw_only=True)
class Case(Convolution):
    groups: int
    block: int = LANES
    config: Config = CONFIG


def case_of(groups: int, ic_group: int, oc_group: int, **others: Any) -> Case:
    return Case(groups=groups, ic=groups * ic_group, oc=groups * oc_group, **others)


def check(form: Form, case: Case) -> None:
    x, w = normal((case.n, case.ic, *case.image), (case.oc, case.ic // case.groups, *case.kernel))
    assert_close(
        case,
        [blocked(x, case.block, case.padding), form.pack(w, case.groups, case.block)],
        lambda p0, p1: form.stage(p0, p1, case.oc, case.groups, case.stride, case.dilation),
        lambda func: form.schedule(func, case.config),
        conv2d(x, w, case.stride, case.padding, case.dilation, case.groups),
    )


CASES = [
    case_of(32, 4, 4, n=1, image=(14, 14), kernel=(3, 3), padding=SAME, config=Config(1, 14, 7)),
    case_of(4, 34, 34, n=1, image=(7, 9), kernel=(1, 1), config=Config(2, 4, 3), threads=2),
    case_of(3, 2, 3, n=1, image=(7, 7), kernel=(3, 3), padding=SAME),
    case_of(5, 1, 3, n=3, image=(9, 6), kernel=(5, 3), stride=(2, 1), padding=(2, 0, 1, 2)),
    case_of(24, 1, 2, n=1, image=(1, 1), kernel=(3, 3), padding=SAME),
    case_of(2, 10, 10, n=1, image=(8, 8), kernel=(3, 3), dilation=(2, 2), threads=3),
    case_of(6, 3, 5, n=2, image=(6, 7), kernel=(2, 2), block=4, padding=(1, 0, 0, 1)),
    case_of(7, 3, 5, n=2, image=(6, 7), kernel=(3, 3), padding=SAME, views=True),
]


@pytest.mark.parametrize("form", FORMS)
@table(CASES)
def test_the_table(form: str, case: Case) -> None:
    check(FORMS[form], case)


@pytest.mark.parametrize("form", FORMS)
@any_case(
    case_of,
    windows(),
    groups=upto(12),
    ic_group=upto(7),
    oc_group=upto(9),
    block=st.sampled_from([4, LANES]),
    config=st.builds(Config, upto(3), upto(9), upto(4)),
)
def test_any_shape(form: str, case: Case) -> None:
    check(FORMS[form], case)


def test_blocks_that_touch_one_group_read_no_other() -> None:
    """34 channels a group: of nine blocks of 16 three touch two groups, so the loop over groups has a computed end."""
    packed = pack_windowed(np.zeros((136, 34, 1, 1), np.float32), 4, 16)
    p0, p1 = te.placeholder((1, 9, 4, 14, 16), name="p0"), te.placeholder(packed.shape, name="p1")
    func = te.create_prim_func([p0, p1, relu_output(windowed_conv2d(p0, p1, 136, 4, (1, 1), (1, 1)))])
    script = lower(grouped.schedule_windowed(func, Config(1, 14)).mod["main"], "kernel", host().tvm()).script()
    assert "if_then_else" not in script and "34) + 15" in script


@pytest.mark.parametrize(
    ("oc", "groups", "touched"), [(128, 32, 4), (256, 32, 2), (136, 4, 2), (256, 128, 8), (544, 4, 2)]
)
def test_the_groups_that_a_block_touches(oc: int, groups: int, touched: int) -> None:
    assert most_groups_touched(oc, groups, 16) == touched
