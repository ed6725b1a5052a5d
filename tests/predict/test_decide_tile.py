"""The side of tiles, by what is predicted, measured or estimated of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.decide import Knowledge
from evo_tvm.decide_tile import choose_tile, tile_workload
from evo_tvm.errors import UsageError
from evo_tvm.predict.model import Prediction
from evo_tvm.target import Target
from evo_tvm.tune.log import Log
from evo_tvm.workload import Workload
from tests.predict.examples import TARGET, convolution, record

WHOLE = convolution(64, 56)


class ByPixels:
    """A predictor for which a kernel takes a microsecond a pixel, and `call_us` more; only of `algorithms`."""

    source = None

    def __init__(self, call_us: float, *algorithms: str) -> None:
        self.call_us, self.algorithms = call_us, algorithms

    def why_not(self, workload: Workload, algorithm: str, target: Target, num_threads: int) -> str:
        return "" if not self.algorithms or algorithm in self.algorithms else "nothing was measured"

    def predict(self, kernels: Sequence[Any], target: Target, num_threads: int = 1) -> list[Prediction]:
        values = [(math.prod(w.output[2:]) + self.call_us) * 1e-3 for w, _, _ in kernels]
        return [Prediction(value, value * 0.9, value * 1.1) for value in values]


def knowing(call_us: float, *algorithms: str, log: Log | None = None) -> Knowledge:
    return Knowledge(log or Log(), ByPixels(call_us, *algorithms))  # type: ignore[arg-type]


@pytest.mark.parametrize(("call_us", "tile"), [(2, 4), (30, 14), (400, 28), (1e6, 28)])
def test_the_predictor_chooses_larger_tiles_where_each_costs_more(call_us: float, tile: int) -> None:
    """At most 1.3 of the image of 56x56: 3,136 us, and one call. A tile of 4 pixels is computed 196 times."""
    assert choose_tile(WHOLE, TARGET, known=knowing(call_us)) == tile


def test_what_was_measured_of_the_image_counts() -> None:
    """An image that was measured to be twice as fast as predicted leaves less room for tiles."""
    config = ALGORITHMS["conv2d"]["spatial_pack"].default(WHOLE, TARGET, 1)
    log = Log([record(WHOLE, config, 1.6)])
    assert choose_tile(WHOLE, TARGET, known=knowing(2)) == 4
    assert choose_tile(WHOLE, TARGET, known=knowing(2, log=log)) == 28


def test_without_times_of_all_the_rule_decides() -> None:
    """Where of the image's algorithm nothing is known, all tiles are estimated."""
    by_rule = choose_tile(WHOLE, TARGET, known=Knowledge())
    assert by_rule > 4, "tiles of 4 pixels leave most of a register tile idle"
    assert choose_tile(WHOLE, TARGET, known=knowing(1e9, "im2col")) == by_rule


def test_rectangles() -> None:
    found = tile_workload(WHOLE, 14, 28)
    assert found == replace(WHOLE, shapes=((1, 64, 14, 28), (64, 64, 3, 3)), output=(1, 64, 14, 28))


def test_an_image_that_no_tile_divides() -> None:
    with pytest.raises(UsageError, match="an image of 7x7 pixels cannot be divided into square tiles"):
        choose_tile(convolution(512, 7), TARGET, known=Knowledge())
