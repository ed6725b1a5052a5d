"""Names of variables: each its own, once and for all."""

from __future__ import annotations

import tvm_ffi
from tvm import relax

from evo_tvm.passes.name_variables import name_variables
from tests.passes._check import assert_rewrites, module
from tests.passes._gated_block import SHAPE


def test_every_variable_gets_a_name_of_its_own() -> None:
    def body(emit, x):  # type: ignore[no-untyped-def]
        return relax.op.exp(emit(relax.op.tanh(emit(relax.op.sqrt(emit(relax.op.abs(x)))))))

    before = module(body, SHAPE)
    for binding in before["main"].body.blocks[0].bindings[1:3]:
        assert binding.var.name.startswith("lv")
    after = assert_rewrites(name_variables, before, ["abs", "sqrt", "tanh", "exp"], rtol=0)
    given = [binding.var.name for binding in after["main"].body.blocks[0].bindings]
    assert len({*given}) == len(given)


def test_names_that_are_there_twice_are_told_apart() -> None:
    def body(emit, x):  # type: ignore[no-untyped-def]
        return relax.op.exp(emit(relax.op.tanh(x)))

    made = module(body, SHAPE)["main"]
    x = made.params[0]
    first, second = (relax.DataflowVar("a", x.ty) for _ in range(2))
    bindings = [
        relax.VarBinding(first, relax.op.tanh(x)),
        relax.VarBinding(second, relax.op.add(relax.op.exp(first), first)),
    ]
    output = relax.Var("a", x.ty)
    bindings.append(relax.VarBinding(output, relax.op.multiply(second, first)))
    body_ = relax.BlockBuilder().normalize(relax.SeqExpr([relax.DataflowBlock(bindings)], output))
    before = module(body, SHAPE)
    before.update_func(before.get_global_var("main"), relax.Function(made.params, body_, x.ty))
    after = name_variables(before)
    names = [binding.var.name for binding in after["main"].body.blocks[0].bindings]
    assert names[0] == "a" and len({*names}) == len(names)
    assert tvm_ffi.structural_equal(after, before), "names are all that changes"


def test_a_model_whose_names_differ_is_left_alone() -> None:
    def body(emit, x):  # type: ignore[no-untyped-def]
        return relax.op.tanh(x)

    named = name_variables(module(body, SHAPE))
    assert name_variables(named).same_as(named) or tvm_ffi.structural_equal(name_variables(named), named)
