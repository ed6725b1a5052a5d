"""y = rest(x) => y = select(decide(head(x)), head(x), rest(x)): inputs that are easy leave early.

Teerapittayanon et al., "BranchyNet: Fast Inference via Early Exiting from Deep Neural Networks" (ICPR 2016). The head
is the hook's network; it leaves when the greatest of its softmax exceeds the threshold.
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
from evo_tvm.passes._rewrite import retyped
from evo_tvm.passes._values import operator_name, shape_of


def insert_exit_gates(hooks: Sequence[Hook]) -> GatePass:
    """A pass that puts an exit behind the feature of each hook of kind "exit"; other hooks are left alone.

    Where the model ends in a softmax, so does each head. Raises UsageError: the model has several outputs, or they are
    not of the size that the head gives.
    """
    return GatePass("insert_exit_gates", lambda module: _insert(module, hooks))


def _insert(module: tvm.IRModule, hooks: Sequence[Hook]) -> tvm.IRModule:
    variables, insertion = Variables(module), Insertion()
    exits = [*chosen(hooks, "exit", variables)]
    if not exits:
        return module
    networks, output = Networks(variables, insertion), variables.output
    last = variables.values[output.name]
    found: dict[str, tuple[relax.Var, relax.Var]] = {}
    for hook, gate in exits:
        if shape_of(output) != (1, outputs_of(hook)):
            raise UsageError(
                "the exit does not give what the model gives",
                where=hook.site,
                expected=f"logits of shape {shape_of(output)}",
                got=(1, outputs_of(hook)),
            )

        def leave(emit: Emit, logits: relax.Var, hook: Hook = hook, gate: str = gate) -> None:
            decision = emit(decide(logits, gate, "exit", hook.threshold), f"{gate}_gate")
            if operator_name(last) == "relax.nn.softmax":
                logits = emit(retyped(last, [logits]), f"{gate}_head")
            found[gate] = decision, logits

        networks.add(hook, gate, leave)

    def wrap(emit: Emit, rest: relax.Var) -> Expr:
        value: Expr = rest
        for place, (_, gate) in enumerate(sorted(exits, key=lambda e: -variables.place[e[0].feature])):
            if place:
                value = emit(value, "rest")
            decision, logits = found[gate]
            value = select(decision, logits, value)
        return value

    insertion.wraps[output.name] = wrap
    return with_main(module, insertion.apply(variables.main))
