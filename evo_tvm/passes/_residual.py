"""Residual blocks: which operand of the addition is the shortcut."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import relax
from tvm.ir import Call

from evo_tvm.errors import UsageError
from evo_tvm.passes._gates import SELECT, SELECT_TILES, Variables, gate_operator
from evo_tvm.passes._rewrite import retyped
from evo_tvm.passes._values import operator_name, same_type

_CONVOLUTIONS = ("relax.nn.conv2d", "relax.nn.conv2d_transpose")


@dataclass(frozen=True)
class Residual:
    """`activation(add(body, shortcut))`; the activation is None where the addition's result leaves the block."""

    body: relax.Var
    shortcut: relax.Var
    activation: Call | None


def residual_at(variables: Variables, site: str) -> Residual:
    """The residual block whose output is the variable `site`. Raises UsageError: there is none."""
    var = variables.named(site, "the site")
    value, activation = variables.values.get(site), None
    while value is not None and gate_operator(value) in (SELECT, SELECT_TILES):  # the block under another gate
        value = variables.values.get(variables.operands(value)[1])
    if isinstance(value, Call) and len(variables.operands(value)) == 1 and same_type(var, value.args[0]):
        activation, inner = value, variables.operands(value)[0]
        value = variables.values.get(inner)
    operands = variables.operands(value) if value is not None and operator_name(value) == "relax.add" else []
    if len(operands) != 2 or not all(same_type(var, variables.vars[name]) for name in operands):
        raise UsageError("no residual block ends here", where=site, hint="A gate that skips needs a shortcut to take.")
    depths = [_depth(variables, a, b) for a, b in (operands, operands[::-1])]
    if depths[0] == depths[1]:
        raise UsageError("neither side of the addition is a shortcut: both are as long", where=site)
    body, shortcut = operands if depths[0] > depths[1] else operands[::-1]
    return Residual(variables.vars[body], variables.vars[shortcut], activation)


def once(variables: Variables, residual: Residual) -> relax.Var | None:
    """The shortcut, where that is what the block gives without its body: it has no activation, or a ReLU that the
    shortcut has come through already. None where the activation would change it."""
    activation, made = residual.activation, variables.values.get(residual.shortcut.name)
    if activation is None:
        return residual.shortcut
    same = made is not None and operator_name(made) == operator_name(activation) == "relax.nn.relu"
    return residual.shortcut if same else None


def again(residual: Residual) -> Call:
    """The block's activation of its shortcut alone."""
    assert residual.activation is not None
    return retyped(residual.activation, [residual.shortcut, *residual.activation.args[1:]])


def _depth(variables: Variables, name: str, other: str) -> int:
    """Most convolutions on a way to `name` from what `other` is computed from, too."""
    shared = variables.ancestors(other)
    depths: dict[str, int] = {}
    for ancestor in sorted(variables.ancestors(name), key=variables.place.__getitem__):
        value = variables.values.get(ancestor)
        if ancestor in shared or value is None:
            depths[ancestor] = 0
        else:
            above = max((depths[operand] for operand in variables.operands(value)), default=0)
            depths[ancestor] = above + (operator_name(value) in _CONVOLUTIONS)
    return depths[name]
