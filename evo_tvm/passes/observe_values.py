"""return y => return (y, a, b, ...): named values of a model as outputs of their own."""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import relax

from evo_tvm.passes._gates import GatePass, Variables, with_main


def observe_values(names: Sequence[str]) -> GatePass:
    """A pass that adds the variables of these names to the outputs. Raises UsageError: the model has no such value."""
    return GatePass("observe_values", lambda module: _observe(module, names))


def _observe(module: tvm.IRModule, names: Sequence[str]) -> tvm.IRModule:
    variables = Variables(module)
    seen = [variables.named(name, "the value to observe") for name in names]
    main = variables.main
    builder = relax.BlockBuilder()
    outputs = {name: relax.Var(name, var.ty) for name, var in zip(names, seen, strict=True)}
    returned = variables.operands(main.body.body)
    swapped = {n: v for n, v in outputs.items() if isinstance(variables.vars[n], relax.DataflowVar)}
    bindings = []
    for binding in main.body.blocks[0].bindings:
        bindings.append(binding)
        if binding.var.name in swapped:
            bindings.append(relax.VarBinding(swapped[binding.var.name], binding.var))
    results = [variables.vars[name] for name in returned] + [swapped.get(n, variables.vars[n]) for n in names]
    result = relax.Tuple(results)
    body = builder.normalize(relax.SeqExpr([relax.DataflowBlock(bindings)], result))
    return with_main(module, relax.Function(main.params, body, body.ty, main.is_pure, main.attrs, main.span))
