"""A residual block that can be skipped: where the gate sits, what it refuses, what both ways give."""

from __future__ import annotations

import numpy as np
import pytest

from evo_tvm.errors import UsageError
from evo_tvm.gates.hook import Hook
from evo_tvm.passes._gates import Variables, gate_operator
from evo_tvm.passes.insert_skip_gates import insert_skip_gates
from tests.passes._check import operators
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
    names,
    written,
)


def test_the_block_becomes_one_side_of_a_select() -> None:
    before = block()
    after = assert_inserts(insert_skip_gates, [hook(before, "skip", "y", "a")], before)
    assert written(after) == ["nn.relu", *DENSE, *CONV, "evo.gate.select", *REST]
    assert '"skip"' in after.script() and "evo.gate.decide" in after.script()
    variables = Variables(after)
    assert gate_operator(variables.values[names(before)["y"]]) == "evo.gate.select"
    assert {*names(before).values()} <= {*variables.vars}, "gated values keep their names"


@pytest.mark.parametrize("first", ["relu", "tanh"])
def test_it_gives_what_the_block_gives_or_the_shortcut_through_its_relu(first: str) -> None:
    before = block(first)
    on, off = (insert_skip_gates([hook(before, "skip", "y", "a", threshold=t)])(before) for t in (ON, OFF))
    assert_gives(on, before, rtol=0)
    assert_gives(off, block(first, without=True))
    # A shortcut that has been through a ReLU needs no other.
    assert written(on).count("nn.relu") == 3 and (written(on)[0] == "nn.relu") == (first == "relu")


def test_a_hidden_layer_has_a_relu() -> None:
    before = block()
    after = insert_skip_gates([hook(before, "skip", "y", "a", hidden=3)])(before)
    assert written(after)[3:8] == ["matmul", "add", "nn.relu", "matmul", "add"]


def test_other_hooks_are_left_alone() -> None:
    before = block()
    assert operators(insert_skip_gates([hook(before, "exit", "e", "a", 5)])(before)) == operators(before)


@pytest.mark.parametrize(
    ("site", "feature", "outputs", "says"),
    [
        ("b", "a", 1, "no residual block ends here"),
        ("nowhere", "a", 1, "'nowhere' is no value of this model"),
        ("y", "nothing", 1, "'nothing' is no value of this model"),
        ("y", "a", 2, "takes one number"),
        ("y", "y", 1, "reads what comes after the block"),
    ],
)
def test_what_does_not_fit_is_refused(site: str, feature: str, outputs: int, says: str) -> None:
    before = block()
    with pytest.raises(UsageError, match=says):
        insert_skip_gates([hook(before, "skip", site, feature, outputs)])(before)


def test_weights_that_do_not_fit_the_feature_are_refused() -> None:
    before = block()
    good = hook(before, "skip", "y", "a")
    for wrong, says in (
        ((np.ones((9, 1), np.float32), good.weights[1]), "expected 8 rows, got 9 rows"),
        ((np.ones((8, 2), np.float32), good.weights[1]), "weights do not fit each other"),
    ):
        with pytest.raises(UsageError, match=says):
            insert_skip_gates([Hook(good.site, "skip", good.feature, wrong, 0.0)])(before)


def test_two_hooks_of_one_kind_at_one_site_are_refused_and_of_two_kinds_are_told_apart() -> None:
    before = block()
    skip, space = hook(before, "skip", "y", "a"), hook(before, "space", "y", "a")
    with pytest.raises(UsageError, match="two hooks of one kind"):
        insert_skip_gates([skip, skip])(before)
    assert f'"{skip.site}:skip"' in insert_skip_gates([skip, space])(before).script()
