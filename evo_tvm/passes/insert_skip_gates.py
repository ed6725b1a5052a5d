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
    outputs_of,
    select,
    with_main,
)
from evo_tvm.passes._residual import Residual, again, once, residual_at


def insert_skip_gates(hooks: Sequence[Hook]) -> GatePass:
    """A pass that gates the residual blocks at the sites of the hooks of kind "skip"; other hooks are left alone.

    Raises UsageError: no residual block ends at a site, or the hook does not fit.
    """
    return GatePass("insert_skip_gates", lambda module: _insert(module, hooks))


def _insert(module: tvm.IRModule, hooks: Sequence[Hook]) -> tvm.IRModule:
    variables, insertion = Variables(module), Insertion()
    networks = Networks(variables, insertion)
    for hook, gate in chosen(hooks, "skip", variables):
        if outputs_of(hook) != 1:
            raise UsageError("a gate that skips takes one number", where=hook.site, got=outputs_of(hook))
        residual = residual_at(variables, hook.site)
        if variables.place[variables.feature(hook).name] > variables.place[residual.body.name]:
            raise UsageError("the hook reads what comes after the block that it would skip", where=hook.site)

        def wrap(emit: Emit, on: relax.Var, residual: Residual = residual, gate: str = gate) -> Expr:
            shortcut = once(variables, residual)
            off = emit(again(residual), f"{gate}_off") if shortcut is None else shortcut
            return select(networks.decisions[gate], on, off)

        networks.decide(hook, gate)
        insertion.wraps[hook.site] = wrap
    return with_main(module, insertion.apply(variables.main)) if insertion.wraps else module
