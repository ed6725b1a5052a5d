"""Gates of channels: where the mask sits, what it refuses, that blocks that are off are zero."""

from __future__ import annotations

import numpy as np
import pytest

from evo_tvm.errors import UsageError
from evo_tvm.gates.network import forward
from evo_tvm.passes.insert_channel_gates import insert_channel_gates
from evo_tvm.passes.observe_values import observe_values
from tests.passes._check import operators, random_inputs, run
from tests.passes._gated_block import (
    CONV,
    DENSE,
    OFF,
    ON,
    REST,
    assert_gives,
    assert_inserts,
    block,
    gates_that_run,
    hook,
    names,
    written,
)


def test_the_value_is_kept_under_a_mask() -> None:
    before = block()
    after = assert_inserts(insert_channel_gates, [hook(before, "channel", "b", "a", 2)], before)
    assert written(after) == ["nn.relu", *DENSE, "nn.conv2d", "nn.relu", "evo.gate.keep", *CONV[2:], *REST]
    assert '"channel"' in after.script()


def test_all_blocks_or_none() -> None:
    before = block()
    on, off = (insert_channel_gates([hook(before, "channel", "b", "a", 4, threshold=t)])(before) for t in (ON, OFF))
    assert_gives(on, before, rtol=0)
    assert_gives(off, block(mask=np.zeros((1, 8, 1, 1))))


def test_blocks_that_are_off_are_zero() -> None:
    before = block()
    gate = hook(before, "channel", "b", "a", 4)
    inputs = random_inputs(before)
    _, a = run(observe_values([names(before)["a"]])(before), inputs)
    scores = forward(gate.weights, a.mean(axis=(2, 3)))[0]
    threshold = float(np.sort(scores)[1:3].mean())  # two of four
    gated = insert_channel_gates([hook(before, "channel", "b", "a", 4, threshold=threshold)])(before)
    mask = np.repeat(scores > threshold, 2).reshape(1, 8, 1, 1)
    gates_that_run()
    np.testing.assert_allclose(run(gated, inputs)[0], run(block(mask=mask), inputs)[0], rtol=1e-4, atol=1e-4)


def test_other_hooks_are_left_alone() -> None:
    before = block()
    assert operators(insert_channel_gates([hook(before, "skip", "y", "a")])(before)) == operators(before)


@pytest.mark.parametrize(
    ("site", "feature", "outputs", "says"),
    [
        ("b", "a", 5, "do not divide the channels"),
        ("b", "y", 2, "reads what comes after the channels"),
        ("pooled", "a", 2, "one image of float32"),
    ],
)
def test_what_does_not_fit_is_refused(site: str, feature: str, outputs: int, says: str) -> None:
    before = block()
    with pytest.raises(UsageError, match=says):
        insert_channel_gates([hook(before, "channel", site, feature, outputs)])(before)
