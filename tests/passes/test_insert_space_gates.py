"""Gates of tiles: where they sit, what they refuse, that tiles that are off are the shortcut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from evo_tvm.errors import UsageError
from evo_tvm.gates.hook import Hook
from evo_tvm.passes._gates import GatePass
from evo_tvm.passes.insert_skip_gates import insert_skip_gates
from evo_tvm.passes.insert_space_gates import insert_space_gates
from evo_tvm.passes.observe_values import observe_values
from tests.passes._check import operators, random_inputs, run
from tests.passes._gated_block import (
    CONV,
    OFF,
    ON,
    REST,
    assert_gives,
    assert_inserts,
    block,
    hook,
    names,
    written,
)

TILES = ["nn.avg_pool2d", "nn.conv2d", "add", "evo.gate.decide"]


def insert(hooks: Sequence[Hook]) -> GatePass:
    return insert_space_gates(hooks, lambda site, shape: 4)


def test_the_block_becomes_one_side_of_a_select_of_tiles() -> None:
    before = block()
    after = assert_inserts(insert, [hook(before, "space", "y", "a")], before)
    assert written(after) == ["nn.relu", *TILES, *CONV, "evo.gate.select_tiles", *REST]
    assert '"space"' in after.script()


@pytest.mark.parametrize("first", ["relu", "tanh"])
def test_all_tiles_or_none(first: str) -> None:
    before = block(first)
    on, off = (insert([hook(before, "space", "y", "a", threshold=t)])(before) for t in (ON, OFF))
    assert_gives(on, before, rtol=0)
    assert_gives(off, block(first, without=True))


def test_each_tile_goes_its_own_way() -> None:
    before = block()
    gate = hook(before, "space", "y", "a")
    inputs = random_inputs(before)
    _, a = run(observe_values([names(before)["a"]])(before), inputs)
    means = a.reshape(8, 2, 4, 2, 4).mean(axis=(2, 4))
    scores = np.einsum("chw,c->hw", means, gate.weights[0][:, 0]) + gate.weights[1][0]
    threshold = float(np.sort(scores.ravel())[1:3].mean())
    gated = insert([hook(before, "space", "y", "a", threshold=threshold)])(before)
    tiles = np.kron(scores > threshold, np.ones((4, 4)))[None, None]
    assert_gives(on := gated, on, rtol=0)  # gates can run now
    np.testing.assert_allclose(run(gated, inputs)[0], run(block(tiles=tiles), inputs)[0], rtol=1e-4, atol=1e-4)


def test_a_block_of_tiles_can_be_skipped_as_a_whole() -> None:
    before = block()
    for space, skip, wanted in ((ON, ON, block()), (OFF, ON, block(without=True)), (ON, OFF, block(without=True))):
        hooks = [hook(before, "space", "y", "a", threshold=space), hook(before, "skip", "y", "a", threshold=skip)]
        after = assert_inserts(insert_skip_gates, hooks, insert(hooks)(before))
        assert written(after).count("evo.gate.select") == written(after).count("evo.gate.select_tiles") == 1
        assert_gives(after, wanted)


def test_other_hooks_are_left_alone() -> None:
    before = block()
    assert operators(insert([hook(before, "skip", "y", "a")])(before)) == operators(before)


@pytest.mark.parametrize(
    ("site", "outputs", "says"), [("y", 2, "does not fit the image"), ("pooled", 1, "one image of float32")]
)
def test_what_does_not_fit_is_refused(site: str, outputs: int, says: str) -> None:
    before = block()
    with pytest.raises(UsageError, match=says):
        insert([hook(before, "space", site, "a", outputs)])(before)
