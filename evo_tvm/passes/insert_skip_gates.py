"""y = relu(body(x) + x) => y = select(decide(hook(x)), relu(body(x) + x), relu(x)): blocks that can be skipped.

Wang et al., "SkipNet: Learning Dynamic Routing in Convolutional Networks" (ECCV 2018). Where the shortcut has come
through a ReLU already, the block's second one is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import relax
from tvm.ir import Expr

from evo_tvm.errors import UsageError
from evo_tvm.gates.hook import Hook
from evo_tvm.passes._gates import (
    Emit,
    GatePass,
    Insertion,
    Networks,
    Variables,
    chosen,
    decide,
    outputs_of,
    select,
    with_main,
)
from evo_tvm.passes._residual import Residual, residual_at
from evo_tvm.passes._rewrite import retyped
from evo_tvm.passes._values import operator_name

#: Activations that leave alone what came through them before.
_ONCE_IS_ENOUGH = ("relax.nn.relu",)


def insert_skip_gates(hooks: Sequence[Hook]) -> GatePass:
    """A pass that gates the residual blocks at the sites of the hooks of kind "skip"; other hooks are left alone.

    Raises UsageError: no residual block ends at a site, or the hook does not fit.
    """
    return GatePass("insert_skip_gates", lambda module: _insert(module, hooks))


def _insert(module: tvm.IRModule, hooks: Sequence[Hook]) -> tvm.IRModule:
    variables, insertion = Variables(module), Insertion()
    networks = Networks(variables, insertion)
    decisions: dict[str, relax.Var] = {}
    for hook, gate in chosen(hooks, "skip"):
        if outputs_of(hook) != 1:
            raise UsageError("a gate that skips takes one number", where=hook.site, got=outputs_of(hook))
        residual = residual_at(variables, hook.site)
        if variables.place[variables.feature(hook).name] > variables.place[residual.body.name]:
            raise UsageError("the hook reads what comes after the block that it would skip", where=hook.site)

        def keep(emit: Emit, logits: relax.Var, hook: Hook = hook, gate: str = gate) -> None:
            decisions[gate] = emit(decide(logits, gate, "skip", hook.threshold), f"{gate}_gate")

        def wrap(emit: Emit, on: relax.Var, residual: Residual = residual, gate: str = gate) -> Expr:
            return select(decisions[gate], on, _skipped(variables, residual, emit, gate))

        networks.add(hook, gate, keep)
        insertion.wraps[hook.site] = wrap
    return with_main(module, insertion.apply(variables.main)) if insertion.wraps else module


def _skipped(variables: Variables, residual: Residual, emit: Emit, gate: str) -> Expr:
    """What the block gives without its body."""
    shortcut, activation = residual.shortcut, residual.activation
    made = variables.values.get(shortcut.name)
    if activation is None:
        return shortcut
    again = operator_name(activation)
    if made is not None and again == operator_name(made) and again in _ONCE_IS_ENOUGH:
        return shortcut
    return emit(retyped(activation, [shortcut, *activation.args[1:]]), f"{gate}_off")
