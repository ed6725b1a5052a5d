"""y = f(x) in integers => y = select(decide(hook(z)), f(x) in float, f(x) in integers): each input its own precision.

Liu et al., "Instance-Aware Dynamic Neural Network Quantization" (CVPR 2022). The second version computes what the
first does without rounding to bytes. Of a block that has no integers it is the same once more, so that it can be given
other algorithms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tvm
from tvm import relax
from tvm.ir import Expr

from evo_tvm.errors import UsageError
from evo_tvm.gates.hook import Hook
from evo_tvm.graph import Codes, real
from evo_tvm.passes._gates import (
    Emit,
    GatePass,
    Insertion,
    Networks,
    Variables,
    chosen,
    outputs_of,
    select,
    with_main,
)
from evo_tvm.passes._residual import residual_at
from evo_tvm.passes._rewrite import substitute
from evo_tvm.passes._values import array_of, constant, operator_name

#: What is behind the names of the second version's values.
SECOND = "_second"


def insert_precision_gates(hooks: Sequence[Hook]) -> GatePass:
    """A pass that computes the blocks that end at the sites of the hooks of kind "precision" in one of two versions.

    A block begins at its shortcut, or at what the hook reads. A hook whose threshold is minus infinity makes no gate:
    the second version alone is computed. Raises UsageError: nothing lies between.
    """
    return GatePass("insert_precision_gates", lambda module: _insert(module, hooks))


def _insert(module: tvm.IRModule, hooks: Sequence[Hook]) -> tvm.IRModule:
    variables, insertion = Variables(module), Insertion()
    networks = Networks(variables, insertion)
    for hook, gate in chosen(hooks, "precision", variables):
        if outputs_of(hook) != 1:
            raise UsageError("a gate of precision takes one number", where=hook.site, got=outputs_of(hook))
        block = block_at(variables, hook)

        always = hook.threshold == -math.inf
        if always and f"{hook.site}{SECOND}" in variables.vars:
            continue

        def wrap(emit: Emit, on: relax.Var, block: list[str] = block, gate: str = gate, always: bool = always) -> Expr:
            second = second_version(variables, block, emit)
            return second if always else select(networks.decisions[gate], second, on)

        if not always:
            networks.decide(hook, gate)
        insertion.wraps[hook.site] = wrap
    return with_main(module, insertion.apply(variables.main)) if insertion.wraps else module


def block_at(variables: Variables, hook: Hook) -> list[str]:
    """The variables of the block that ends at the hook's site, in order."""
    variables.named(hook.site, "the site")
    try:
        begin = residual_at(variables, hook.site).shortcut.name
    except UsageError:
        begin = hook.feature
    feature = variables.place[variables.feature(hook).name]
    inside: set[str] = set()
    for name in sorted(variables.ancestors(hook.site), key=variables.place.__getitem__):
        value = variables.values.get(name)
        if value is not None and name != begin and {begin, *inside} & {*variables.operands(value)}:
            inside.add(name)
    if hook.site not in inside or feature >= min(variables.place[name] for name in inside):
        raise UsageError(
            "the hook does not lie before a block that ends at its site",
            where=hook.site,
            expected="a feature that is there before the block is computed",
            got=hook.feature,
        )
    return sorted(inside, key=variables.place.__getitem__)


def second_version(variables: Variables, block: Sequence[str], emit: Emit) -> Expr:
    """The block's last value once more, without rounding on the way; its other values are emitted."""
    inside = {*block}
    new: dict[int, Expr] = {}
    for name in block:
        value = variables.values[name]
        for operand in {*variables.operands(value)} - inside:
            real = _real_constant(variables.values.get(operand))
            if real is not None:
                new[hash(variables.vars[operand])] = real
        made = substitute(_unrounded(value, inside), new)
        new[hash(variables.vars[name])] = made if isinstance(made, relax.Var) else emit(made, f"{name}{SECOND}")
    return new[hash(variables.vars[block[-1]])]


def _unrounded(value: Expr, inside: set[str]) -> Expr:
    """x of quantize(x), and y of dequantize(y), which then has not been rounded either; any other value as it is."""
    if operator_name(value) not in ("relax.quantize", "relax.dequantize"):
        return value
    data = value.args[0]
    return data if operator_name(value) == "relax.quantize" or data.name in inside else value


def _real_constant(value: Expr | None) -> Expr | None:
    """The numbers that a constant of integers stands for; None where the value is none."""
    if value is None or operator_name(value) != "relax.dequantize":
        return None
    codes, scale, zero = (array_of(a) for a in value.args[:3])
    if codes is None or scale is None or zero is None:
        return None
    return constant(real(Codes(codes, scale, zero, int(value.attrs.axis) % max(codes.ndim, 1))), "float32")
