"""Gates of precision: where they sit, what they refuse, that one way rounds and the other does not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evo_tvm.errors import UsageError
from evo_tvm.passes._gates import Variables
from evo_tvm.passes.insert_precision_gates import insert_precision_gates
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
    hook,
    rounding_block,
    written,
)


def ends() -> tuple[str, str]:
    """The last activation of `rounding_block`, and its shortcut."""
    relus = [n for n, v in Variables(rounding_block()).values.items() if v.op.name == "relax.nn.relu"]
    return relus[-1], relus[0]


def test_both_versions_are_there() -> None:
    before = block()
    after = assert_inserts(insert_precision_gates, [hook(before, "precision", "y", "a")], before)
    assert written(after) == ["nn.relu", *DENSE, *CONV, *CONV, "evo.gate.select", *REST]
    assert '"precision"' in after.script()


def test_one_version_rounds_and_the_other_does_not() -> None:
    before, (site, feature) = rounding_block(), ends()
    off, on = (insert_precision_gates([hook(before, "precision", site, feature, threshold=t)]) for t in (OFF, ON))
    assert_gives(off(before), before, rtol=0)
    assert_gives(on(before), rounding_block(rounds=False))
    inputs = random_inputs(before)
    (rounded,), (exact,) = run(before, inputs), run(rounding_block(rounds=False), inputs)
    assert np.abs(rounded - exact).max() > 1e-4 * np.abs(exact).max()


def test_a_threshold_of_minus_infinity_leaves_the_second_version_alone() -> None:
    before, (site, feature) = rounding_block(), ends()
    after = assert_inserts(
        insert_precision_gates, [hook(before, "precision", site, feature, threshold=-math.inf)], before
    )
    assert not {name for name in written(after) if name.startswith("evo.gate")}
    assert_gives(after, rounding_block(rounds=False))


def test_other_hooks_are_left_alone_and_what_does_not_fit_is_refused() -> None:
    before = block()
    assert operators(insert_precision_gates([hook(before, "skip", "y", "a")])(before)) == operators(before)
    with pytest.raises(UsageError, match="does not lie before a block"):
        insert_precision_gates([hook(before, "precision", "a", "y")])(before)
    with pytest.raises(UsageError, match="takes one number"):
        insert_precision_gates([hook(before, "precision", "y", "a", 2)])(before)
