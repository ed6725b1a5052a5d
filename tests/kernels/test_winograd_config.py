"""What the rule configures Winograd convolution as, where nothing was measured."""

from __future__ import annotations

import math

import pytest

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.schedules.winograd import Config
from evo_tvm.target import resolve
from evo_tvm.workload import Workload

LINE, PLACES = 64, 4096
WINOGRAD = ALGORITHMS["conv2d"]["winograd4"]


def convolution(channels: int, height: int, width: int) -> Workload:
    attrs = "dilation=1,1 groups=1 padding=1,1,1,1 stride=1,1"
    key = f"conv2d 1x{channels}x{height}x{width} {channels}x{channels}x3x3 {attrs} float32"
    return Workload.from_key(key, (1, channels, height, width), ("add", "relu"))


def apart(config: Config, channels: int, width: int) -> int:
    """Bytes between two elements of a transformed tile."""
    found = channels * config.group_rows * math.ceil(width / 4) * 4
    return found + (LINE - found) % (2 * LINE) if config.spread else found


@pytest.mark.parametrize("target", ["x86-64-v4", "x86-64-v3", "cortex-a76", "rv64gcv"])
@pytest.mark.parametrize(
    ("channels", "height", "width"),
    [(64, 14, 14), (64, 28, 28), (64, 14, 28), (64, 56, 28), (128, 28, 28), (128, 14, 28), (256, 14, 14), (512, 7, 7)],
)
def test_elements_of_a_tile_do_not_compete_and_no_step_is_guarded(
    target: str, channels: int, height: int, width: int
) -> None:
    config = WINOGRAD.default(convolution(channels, height, width), resolve(target), 1)
    assert isinstance(config, Config)
    places = PLACES // math.gcd(apart(config, channels, width), PLACES)
    assert places > 8, "all 36 lie in an eighth of the first cache"
    assert math.ceil(height / 4) % config.group_rows % config.row_tile == 0, "the last rows are guarded"
    if target.startswith("x86"):
        assert config.column_tile > 1 or width <= 4


def test_the_space_spreads_where_elements_would_compete() -> None:
    target = resolve("x86-64-v3")
    spread = {(c.group_rows, c.spread) for c in WINOGRAD.space(convolution(64, 14, 14), target, 1)}
    assert spread == {(1, True), (2, True), (3, True), (4, True)}
    assert {c.spread for c in WINOGRAD.space(convolution(24, 20, 20), target, 1) if c.group_rows == 1} == {False}
