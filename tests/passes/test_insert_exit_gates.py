"""Exits: where they sit, what they refuse, what an input gives that leaves or stays."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from evo_tvm.errors import UsageError
from evo_tvm.gates.network import forward, softmax
from evo_tvm.passes.insert_exit_gates import insert_exit_gates
from evo_tvm.passes.insert_skip_gates import insert_skip_gates
from evo_tvm.passes.name_variables import name_variables
from evo_tvm.passes.observe_values import observe_values
from tests.passes._check import module, operators, random_inputs, run, weights
from tests.passes._gated_block import (
    CONV,
    DENSE,
    OFF,
    ON,
    REST,
    SHAPE,
    assert_gives,
    assert_inserts,
    block,
    hook,
    names,
    written,
)


def test_the_rest_becomes_one_side_of_a_select() -> None:
    before = block()
    after = assert_inserts(insert_exit_gates, [hook(before, "exit", "early", "a", 5)], before)
    assert written(after) == ["nn.relu", *DENSE, *CONV, *REST, "evo.gate.select"]
    assert '"exit"' in after.script()


def test_an_input_that_leaves_gets_the_heads_logits() -> None:
    before = block()
    leaving = hook(before, "exit", "early", "a", 5, threshold=ON)
    assert_gives(insert_exit_gates([hook(before, "exit", "early", "a", 5, threshold=OFF)])(before), before, rtol=0)
    inputs = random_inputs(before)
    assert_gives(insert_exit_gates([leaving])(before), insert_exit_gates([leaving])(before), rtol=0)
    (got,) = run(insert_exit_gates([leaving])(before), inputs)
    _, a = run(observe_values([names(before)["a"]])(before), inputs)
    np.testing.assert_allclose(got, forward(leaving.weights, a.mean(axis=(2, 3))), rtol=1e-5, atol=1e-5)


def test_it_leaves_where_the_greatest_softmax_is_above_the_threshold() -> None:
    before = block()
    inputs = random_inputs(before)
    leaving = hook(before, "exit", "early", "a", 5, threshold=ON)
    assert_gives(insert_exit_gates([leaving])(before), insert_exit_gates([leaving])(before), rtol=0)
    (head,), (whole,) = (run(m, inputs) for m in (insert_exit_gates([leaving])(before), before))
    score = float(softmax(head).max())
    for threshold, wanted in ((score - 1e-3, head), (score + 1e-3, whole)):
        gated = insert_exit_gates([hook(before, "exit", "early", "a", 5, threshold=threshold)])(before)
        np.testing.assert_array_equal(run(gated, inputs)[0], wanted)


def softmax_model() -> tvm.IRModule:
    def body(emit, x):  # type: ignore[no-untyped-def]
        pooled = emit(relax.op.reshape(emit(relax.op.nn.adaptive_avg_pool2d(emit(relax.op.tanh(x)), (1, 1))), (1, 8)))
        return relax.op.nn.softmax(emit(relax.op.matmul(pooled, weights(8, 5))))

    return name_variables(module(body, SHAPE))


def test_heads_of_a_model_that_ends_in_a_softmax_do_so_too() -> None:
    before = softmax_model()
    first = before["main"].body.blocks[0].bindings[0].var.name
    after = insert_exit_gates([hook(before, "exit", "early", first, 5)])(before)
    assert written(after).count("nn.softmax") == 2


def test_hooks_that_read_one_feature_share_its_pool() -> None:
    before = block()
    hooks = [hook(before, "skip", "y", "a"), hook(before, "exit", "early", "a", 5)]
    after = insert_exit_gates(hooks)(insert_skip_gates(hooks)(before))
    assert written(after).count("nn.adaptive_avg_pool2d") == 2  # theirs, and the model's own


def test_other_hooks_are_left_alone_and_wrong_sizes_refused() -> None:
    before = block()
    assert operators(insert_exit_gates([hook(before, "skip", "y", "a")])(before)) == operators(before)
    with pytest.raises(UsageError, match=r"expected logits of shape \(1, 5\), got \(1, 4\)"):
        insert_exit_gates([hook(before, "exit", "early", "a", 4)])(before)
    with pytest.raises(UsageError, match="an exit needs a model with one output"):
        insert_exit_gates([hook(before, "exit", "early", "a", 5)])(observe_values([names(before)["b"]])(before))
