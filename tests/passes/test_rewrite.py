"""The rewriter under all passes: what it keeps, what it renames, what it drops, and how it fails."""

from __future__ import annotations

from typing import ClassVar

import pytest
import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Call, Expr
from tvm.relax import op

from evo_tvm.passes._rewrite import Graph, Rule, refusals, rewriting_pass
from evo_tvm.passes.cancel_pairs import cancel_pairs
from evo_tvm.passes.eliminate_common_subexpressions import eliminate_common_subexpressions
from evo_tvm.passes.move_slices import move_slices
from tests.passes._check import Emit, module, operators


class ExpToSin(Rule[Call]):
    roots: ClassVar[tuple[str, ...]] = ("relax.exp",)

    def match(self, graph: Graph, value: Expr) -> Call | None:
        return value

    def check(self, graph: Graph, found: Call) -> str | None:
        return None if graph.only_use(found.args[0]) else "shared"

    def rewrite(self, graph: Graph, found: Call) -> Expr:
        return op.sin(found.args[0])


class SinToExp(Rule[Call]):
    roots: ClassVar[tuple[str, ...]] = ("relax.sin",)

    def match(self, graph: Graph, value: Expr) -> Call | None:
        return value

    def rewrite(self, graph: Graph, found: Call) -> Expr:
        return op.exp(found.args[0])


class DropTanh(Rule[Call]):
    roots: ClassVar[tuple[str, ...]] = ("relax.tanh",)

    def match(self, graph: Graph, value: Expr) -> Call | None:
        return value

    def rewrite(self, graph: Graph, found: Call) -> Expr:
        return found.args[0]


exp_to_sin = rewriting_pass("exp_to_sin", lambda: [ExpToSin()])
drop_tanh = rewriting_pass("drop_tanh", lambda: [DropTanh()])


def test_nothing_to_do_gives_the_same_module() -> None:
    before = module(lambda emit, x: op.cos(x), (4,))
    assert exp_to_sin(before).same_as(before)


def test_a_dead_binding_is_dropped() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        emit(op.cos(x))
        return op.abs(x)

    assert operators(exp_to_sin(module(body, (4,)))) == ["abs"]


def test_the_output_keeps_its_name_and_the_function_its_attributes() -> None:
    before = module(lambda emit, x: op.tanh(emit(op.exp(x))), (4,))
    before["main"] = before["main"].with_attr("num_input", 1)
    after = drop_tanh(before)["main"]
    assert [str(b.var.name) for b in after.body.blocks[0].bindings] == ["gv"]
    assert after.attrs["num_input"] == 1


def test_an_output_may_become_an_input() -> None:
    after = drop_tanh(module(lambda emit, x: op.tanh(x), (4,)))
    relax.analysis.well_formed(after)
    assert operators(after) == ["Var"]


def test_outputs_that_become_one_value() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        value = emit(op.exp(x))
        return relax.Tuple([emit(op.tanh(value)), emit(op.tanh(emit(op.tanh(value))))])

    after = drop_tanh(module(body, (4,)))
    relax.analysis.well_formed(after)
    assert operators(after) == ["exp", "Tuple"]


def test_refusals_are_told_to_who_listens() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        shared = emit(op.cos(x))
        return op.add(emit(op.exp(shared)), shared)

    before = module(body, (4,))
    with refusals() as found:
        exp_to_sin(before)
        exp_to_sin(before)
    exp_to_sin(before)
    assert [(r.pass_name, r.variable, r.reason) for r in found] == [("exp_to_sin", "lv1", "shared")] * 2


def test_rules_that_undo_each_other_are_found_out() -> None:
    circle = rewriting_pass("circle", lambda: [ExpToSin(), SinToExp()])
    with pytest.raises(RuntimeError, match="circle does not come to an end at gv"):
        circle(module(lambda emit, x: op.exp(x), (4,)))


def branches() -> tvm.IRModule:
    """tanh and exp before, in and after a branch, and in a second function."""
    source = """
@I.ir_module
class Branches:
    @R.function
    def main(x: R.Tensor((4,), "float32"), condition: R.Tensor((), "bool")) -> R.Tensor((4,), "float32"):
        with R.dataflow():
            y = R.exp(R.tanh(x))
            R.output(y)
        if condition:
            z = R.cos(y)
        else:
            z = R.abs(y)
        with R.dataflow():
            w = R.exp(R.tanh(z))
            R.output(w)
        return w

    @R.function
    def other(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        with R.dataflow():
            y = R.tanh(R.exp(x))
            R.output(y)
        return y
"""
    return tvm.script.from_source(source, {"I": tvm.script.ir, "R": tvm.script.relax})


def test_branches_stay_and_every_function_is_rewritten() -> None:
    after = drop_tanh(branches())
    relax.analysis.well_formed(after)
    assert operators(after) == ["exp", "If", "exp"]
    values = [b.value.op.name for block in after["other"].body.blocks for b in block.bindings]
    assert values == ["relax.exp"]
    assert tvm_ffi.structural_equal(drop_tanh(after), after)


@pytest.mark.parametrize("step", [cancel_pairs, eliminate_common_subexpressions, move_slices])
def test_what_a_block_keeps_to_itself_is_not_used_in_another(step: tvm.transform.Pass) -> None:
    x = relax.Var("x", relax.TensorType([2, 3], "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            row = builder.emit(op.strided_slice(x, [0], [0], [1]))
            turned = builder.emit_output(op.permute_dims(builder.emit(op.add(builder.emit(op.exp(x)), row))))
        between = builder.emit(op.abs(turned))  # not in a dataflow block
        with builder.dataflow():
            total = builder.emit(op.add(builder.emit(op.permute_dims(turned)), builder.emit(op.exp(x))))
            total = builder.emit(op.add(total, builder.emit(op.strided_slice(x, [0], [0], [1]))))
            output = builder.emit_output(op.add(total, builder.emit(op.permute_dims(between))))
        builder.emit_func_output(output)
    before = builder.get()
    assert len(before["main"].body.blocks) == 3
    after = step(before)
    relax.analysis.well_formed(after)
    assert operators(after) == operators(before)
