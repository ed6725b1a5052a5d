"""Values inside a model as outputs of their own."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from evo_tvm.errors import UsageError
from evo_tvm.passes.observe_values import observe_values
from tests.passes._check import operators, random_inputs, run
from tests.passes._gated_block import SHAPE, block, names


def test_observed_values_are_returned_behind_the_models_own() -> None:
    before = block()
    named = names(before)
    after = observe_values([named["y"], named["b"]])(before)
    relax.analysis.well_formed(after)
    assert [tuple(map(int, t.shape)) for t in after["main"].ret_ty.fields] == [(1, 5), SHAPE, SHAPE]
    inputs = random_inputs(before)
    logits, y, b = run(after, inputs)
    np.testing.assert_array_equal(logits, run(before, inputs)[0])
    assert (y >= 0).all() and (b >= 0).all() and not np.array_equal(y, b)


def test_the_models_own_operators_stay() -> None:
    before = block()
    after = observe_values([names(before)["b"]])(before)
    assert [name for name in operators(after) if name != "DataflowVar"] == operators(before)


def test_a_value_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="'other' is no value of this model"):
        observe_values(["other"])(block())
