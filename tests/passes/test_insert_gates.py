"""Gates as operators of the Relax module: where the passes put them, what they refuse, what is printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Call

from evo_tvm.errors import UsageError
from evo_tvm.gates.hook import Hook, Kind
from evo_tvm.passes._gates import GatePass, Variables, gate_operator
from evo_tvm.passes.insert_channel_gates import insert_channel_gates
from evo_tvm.passes.insert_exit_gates import insert_exit_gates
from evo_tvm.passes.insert_precision_gates import insert_precision_gates
from evo_tvm.passes.insert_skip_gates import insert_skip_gates
from evo_tvm.passes.insert_space_gates import insert_space_gates
from evo_tvm.passes.name_variables import name_variables
from evo_tvm.passes.observe_values import observe_values
from tests.passes._check import module, operators, weights

SHAPE = (1, 8, 8, 8)


def block(relu_first: bool = True) -> tvm.IRModule:
    """stem -> a -> relu(conv(relu(conv(a))) + a) = y -> logits, every variable by name."""

    def body(emit, x):  # type: ignore[no-untyped-def]
        a = emit(relax.op.nn.relu(x)) if relu_first else emit(relax.op.tanh(x))
        b = emit(relax.op.nn.relu(emit(relax.op.nn.conv2d(a, weights(8, 8, 3, 3), padding=1))))
        c = emit(relax.op.nn.conv2d(b, weights(8, 8, 3, 3), padding=1))
        y = emit(relax.op.nn.relu(emit(relax.op.add(c, a))))
        pooled = emit(relax.op.reshape(emit(relax.op.nn.adaptive_avg_pool2d(y, (1, 1))), (1, 8)))
        return relax.op.matmul(pooled, weights(8, 5))

    return name_variables(module(body, SHAPE))


def names(mod: tvm.IRModule) -> dict[str, str]:
    """The variables of `block` by what they are above."""
    given = [binding.var.name for binding in mod["main"].body.blocks[0].bindings]
    return dict(zip(("a", "conv", "b", "c", "sum", "y", "mean", "pooled", "logits"), given, strict=True))


def hook(mod: tvm.IRModule, kind: Kind, site: str, feature: str, outputs: int = 1, hidden: int = 0) -> Hook:
    named = names(mod)
    sizes = (8, hidden, outputs) if hidden else (8, outputs)
    shapes = [shape for i, o in pairwise(sizes) for shape in ((i, o), (o,))]
    made = tuple(np.ones(shape, np.float32) for shape in shapes)
    return Hook(named.get(site, site), kind, named.get(feature, feature), made, 0.25)


def written(mod: tvm.IRModule) -> list[str]:
    """Operators of main, gates by their names."""
    values = [binding.value for binding in mod["main"].body.blocks[0].bindings]
    return [gate_operator(v) or v.op.name.removeprefix("relax.") for v in values if isinstance(v, Call)]


Insert = Callable[[Sequence[Hook]], GatePass]
PASSES: dict[str, Insert] = {
    "skip": insert_skip_gates,
    "exit": insert_exit_gates,
    "channel": insert_channel_gates,
    "space": lambda hooks: insert_space_gates(hooks, lambda site, shape: 4),
    "precision": insert_precision_gates,
}
HOOKS = {
    "skip": ("y", "a", 1),
    "exit": ("early", "a", 5),
    "channel": ("b", "a", 2),
    "space": ("y", "a", 1),
    "precision": ("y", "a", 1),
}
DENSE = ["nn.adaptive_avg_pool2d", "reshape", "matmul", "add", "evo.gate.decide"]
CONV = ["nn.conv2d", "nn.relu", "nn.conv2d", "add", "nn.relu"]
REST = ["nn.adaptive_avg_pool2d", "reshape", "matmul"]
TILES = ["nn.avg_pool2d", "nn.conv2d", "add", "evo.gate.decide"]
EXPECTED = {
    "skip": ["nn.relu", *DENSE, *CONV, "evo.gate.select", *REST],
    "exit": ["nn.relu", *DENSE, *CONV, *REST, "evo.gate.select"],
    "channel": ["nn.relu", *DENSE, "nn.conv2d", "nn.relu", "evo.gate.keep", *CONV[2:], *REST],
    "space": ["nn.relu", *TILES, *CONV, "evo.gate.select_tiles", *REST],
    "precision": ["nn.relu", *DENSE, *CONV, *CONV, "evo.gate.select", *REST],
}


@pytest.mark.parametrize("kind", PASSES)
def test_a_gate_is_put_in_and_printed(kind: Kind) -> None:
    before = block()
    original = tvm_ffi.structural_hash(before)
    site, feature, outputs = HOOKS[kind]
    after = PASSES[kind]([hook(before, kind, site, feature, outputs)])(before)
    assert tvm_ffi.structural_hash(before) == original, "the input was changed"
    assert written(after) == EXPECTED[kind]
    relax.analysis.well_formed(after)
    assert f'"{kind}"' in after.script() and "evo.gate.decide" in after.script()


@pytest.mark.parametrize("kind", PASSES)
def test_hooks_of_other_kinds_are_left_alone(kind: Kind) -> None:
    before = block()
    others = [hook(before, other, *HOOKS[other]) for other in PASSES if other != kind]
    assert operators(PASSES[kind](others)(before)) == operators(before)


def test_the_names_of_gated_values_stay() -> None:
    before = block()
    after = insert_skip_gates([hook(before, "skip", "y", "a")])(before)
    variables = Variables(after)
    assert gate_operator(variables.values[names(before)["y"]]) == "evo.gate.select"
    assert {*names(before).values()} <= {*variables.vars}


def test_hooks_that_read_one_feature_share_its_pool() -> None:
    mod = block()
    hooks = [hook(mod, "skip", "y", "a"), hook(mod, "exit", "early", "a", 5)]
    after = insert_exit_gates(hooks)(insert_skip_gates(hooks)(mod))
    assert written(after).count("nn.adaptive_avg_pool2d") == 2  # theirs, and the model's own


def test_a_hidden_layer_has_a_relu() -> None:
    mod = block()
    after = insert_skip_gates([hook(mod, "skip", "y", "a", hidden=3)])(mod)
    assert written(after)[3:8] == ["matmul", "add", "nn.relu", "matmul", "add"]


def test_a_shortcut_that_has_been_through_no_relu_goes_through_the_blocks() -> None:
    mod = block(relu_first=False)
    after = insert_skip_gates([hook(mod, "skip", "y", "a")])(mod)
    at = written(after).index("evo.gate.select")
    assert written(after)[at - 1] == "nn.relu" and written(after).count("nn.relu") == 3


@pytest.mark.parametrize(
    ("kind", "site", "feature", "outputs", "says"),
    [
        ("skip", "b", "a", 1, "no residual block ends here"),
        ("skip", "nowhere", "a", 1, "'nowhere' is no value of this model"),
        ("skip", "y", "nothing", 1, "'nothing' is no value of this model"),
        ("skip", "y", "a", 2, "takes one number"),
        ("skip", "y", "y", 1, "reads what comes after the block"),
        ("exit", "early", "a", 4, r"expected logits of shape \(1, 5\), got \(1, 4\)"),
        ("channel", "b", "a", 5, "do not divide the channels"),
        ("channel", "b", "y", 2, "reads what comes after the channels"),
        ("channel", "pooled", "a", 2, "one image of float32"),
        ("space", "y", "a", 2, "does not fit the image"),
        ("space", "pooled", "a", 1, "one image of float32"),
        ("precision", "a", "y", 1, "does not lie before a block"),
    ],
)
def test_what_does_not_fit_is_refused(kind: Kind, site: str, feature: str, outputs: int, says: str) -> None:
    mod = block()
    with pytest.raises(UsageError, match=says):
        PASSES[kind]([hook(mod, kind, site, feature, outputs)])(mod)


def test_weights_that_do_not_fit_the_feature_are_refused() -> None:
    mod = block()
    good = hook(mod, "skip", "y", "a")
    for wrong, says in (
        ((np.ones((9, 1), np.float32), good.weights[1]), "expected 8 rows, got 9 rows"),
        ((np.ones((8, 2), np.float32), good.weights[1]), "weights do not fit each other"),
    ):
        with pytest.raises(UsageError, match=says):
            insert_skip_gates([Hook(good.site, "skip", good.feature, wrong, 0.0)])(mod)


def test_two_hooks_of_one_kind_at_one_site_are_refused_and_of_two_kinds_are_told_apart() -> None:
    mod = block()
    skip, space = hook(mod, "skip", "y", "a"), hook(mod, "space", "y", "a")
    with pytest.raises(UsageError, match="two hooks of one kind"):
        insert_skip_gates([skip, skip])(mod)
    assert f'"{skip.site}:skip"' in insert_skip_gates([skip, space])(mod).script()


def test_observed_values_are_returned_under_their_names() -> None:
    mod = block()
    named = names(mod)
    after = observe_values([named["y"], named["b"]])(mod)
    relax.analysis.well_formed(after)
    assert [tuple(map(int, t.shape)) for t in after["main"].ret_ty.fields] == [(1, 5), SHAPE, SHAPE]
    with pytest.raises(UsageError, match="'other' is no value of this model"):
        observe_values(["other"])(mod)


def test_every_variable_gets_a_name_of_its_own_once() -> None:
    def body(emit, x):  # type: ignore[no-untyped-def]
        return relax.op.exp(emit(relax.op.tanh(emit(relax.op.sqrt(x)))))

    before = module(body, SHAPE)
    after = name_variables(before)
    given = [binding.var.name for binding in after["main"].body.blocks[0].bindings]
    assert len({*given}) == len(given) and operators(after) == operators(before)
    assert tvm_ffi.structural_equal(name_variables(after), after)
