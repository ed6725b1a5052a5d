"""Depthwise convolution of bytes against numpy, exactly: taps in fours, outputs that share pixels, instruction sets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import strategies as st

from evo_tvm.kernels.depthwise_dot import columns_read, depthwise_dot, fours, pack_depthwise_dot, shared_by
from evo_tvm.schedules import common, depthwise
from evo_tvm.schedules.depthwise import Config
from evo_tvm.target import resolve
from tests import reference
from tests.kernels._bytes import TARGETS, around, assert_sums, in_blocks, on_all_targets, random_bytes
from tests.kernels._convolution import SAME, Convolution, table, upto, windows

STRIP = Config(1, 4)


@dataclass(frozen=True, kw_only=True)
class Case(Convolution):
    """zero: the byte around the image. block: of both sides; 0 stands for the target's lanes."""

    zero: int = 0
    block: int = 0
    config: Config = STRIP


def case_of(channels: int, **others: object) -> Case:
    return Case(ic=channels, oc=channels, **others)  # type: ignore[arg-type]


def check(target: str, case: Case) -> None:
    block, (kh, kw) = case.block or resolve(target).lanes_f32, case.kernel
    x, w = random_bytes(6, (case.n, case.ic, *case.image), (case.ic, 1, kh, kw))
    wanted = reference.depthwise_conv2d(around(x, case.padding, case.zero), w, case.stride, (0, 0, 0, 0), case.dilation)
    image = wanted.shape[2:]
    _, left, _, right = case.padding
    spare = columns_read(image[1], kw, case.stride[1]) - left - case.image[1] - right
    padded = around(x, case.padding, case.zero)
    beyond = around(padded, (0, 0, 0, max(spare, 0)), 255)  # multiplied by zero
    assert_sums(
        target,
        [in_blocks(beyond, block), np.ascontiguousarray(pack_depthwise_dot(w, block, case.stride[1]))],
        lambda p0, p1: depthwise_dot(p0, p1, image, case.stride, case.dilation[0]),
        lambda func: depthwise.schedule(func, "depthwise", case.config),
        wanted,
        case.threads,
    )


CASES = [
    case_of(32, n=1, image=(8, 8), padding=SAME, zero=113, config=Config(1, 8)),
    case_of(19, n=2, image=(5, 7), padding=(2, 0, 1, 3), zero=255, config=Config(2, 2)),
    case_of(16, n=1, image=(9, 11), stride=(2, 2), padding=(0, 0, 1, 1), zero=7, config=Config(1, 3)),
    case_of(16, n=1, image=(9, 10), kernel=(5, 5), padding=(2, 2, 2, 2), zero=90, config=Config(1, 5)),
    case_of(16, n=1, image=(9, 12), kernel=(5, 5), stride=(2, 2), padding=(1, 2, 2, 1), zero=90, config=Config(2, 3)),
    case_of(24, n=1, image=(7, 13), kernel=(7, 7), padding=(3, 3, 3, 3), zero=200, config=Config(1, 4)),
    case_of(8, n=1, image=(6, 9), kernel=(3, 1), dilation=(2, 1), zero=3),
    case_of(8, n=1, image=(6, 9), kernel=(1, 3), stride=(1, 3)),
    case_of(20, n=1, image=(3, 9), kernel=(2, 2), config=Config(1, 6), zero=3, padding=(1, 1, 0, 0)),
    case_of(8, n=1, image=(3, 9), kernel=(2, 4), padding=(0, 3, 0, 3), zero=5),
    case_of(33, n=3, image=(1, 1), padding=SAME, zero=77, config=Config(1, 1)),
    case_of(2, n=1, image=(1, 6), kernel=(1, 1), config=Config(1, 4)),
    case_of(24, n=1, image=(5, 5), padding=SAME, zero=77, block=8),
    case_of(12, n=1, image=(5, 5), padding=SAME, zero=77, block=4),
]


@pytest.mark.parametrize("target", TARGETS)
@table(CASES)
def test_the_table(target: str, case: Case) -> None:
    check(target, case)


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "PARALLEL_WORK", 1)
    check("host", replace(CASES[3], n=2, threads=3))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("weight", [-128, 127])
def test_the_largest_sums(target: str, weight: int) -> None:
    """Pairs of products do not fit 16 bits."""
    block = resolve(target).lanes_f32
    x, w = np.full((1, block, 5, 7), 255, np.uint8), np.full((block, 1, 5, 5), weight, np.int8)
    assert_sums(
        target,
        [in_blocks(around(x, (0, 0, 0, 3), 255), block), np.ascontiguousarray(pack_depthwise_dot(w, block, 1))],
        lambda p0, p1: depthwise_dot(p0, p1, (1, 3), (1, 1), 1),
        lambda func: depthwise.schedule(func, "depthwise", Config(1, 3)),
        np.full((1, block, 1, 3), 255 * weight * 25),
    )


@on_all_targets(
    st.builds(
        lambda shape, channels, config, zero: case_of(
            channels, zero=zero, config=config, **{**shape, "dilation": (shape["dilation"][0], 1)}
        ),
        windows(kernel=5, dilation=2, spare=5),
        upto(40),
        st.builds(Config, upto(2), upto(4)),
        st.integers(0, 255),
    )
)
def test_any_shape(target: str, case: Case) -> None:
    check(target, case)


@pytest.mark.parametrize(
    ("taps", "stride", "groups", "share", "read"),
    [(3, 1, 1, 2, 12), (3, 2, 1, 1, 22), (5, 1, 2, 4, 16), (4, 1, 1, 1, 13), (1, 1, 1, 4, 12), (1, 2, 1, 2, 20)],
)
def test_what_a_row_of_ten_reads(taps: int, stride: int, groups: int, share: int, read: int) -> None:
    """Each group of outputs reads its fours from its first pixel on."""
    assert (fours(taps), shared_by(taps, stride), columns_read(10, taps, stride)) == (groups, share, read)
    last = range(9 // share * share * stride, 9 * stride + taps)
    assert last[-1] < read


def test_packed_taps() -> None:
    taps = np.arange(1, 7, dtype=np.int8).reshape(2, 1, 1, 3)
    packed = pack_depthwise_dot(taps, 4, 1)
    assert packed.shape == (1, 2, 1, 1, 4, 4)
    assert packed[0, :, 0, 0, :2].tolist() == [[[1, 2, 3, 0], [4, 5, 6, 0]], [[0, 1, 2, 3], [0, 4, 5, 6]]]
    assert not packed[0, :, 0, 0, 2:].any()
