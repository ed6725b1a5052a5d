"""a = f(x); a = g(a) => a = f(x); a_1 = g(a): every variable of main has a name of its own.

Hooks name the values of a model that they read and gate. The names are those that the module is printed with.
"""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.ir import Expr

from evo_tvm.passes._rewrite import substitute


def _name_variables(module: tvm.IRModule, _context: tvm.ir.transform.PassContext) -> tvm.IRModule:
    main = module["main"]
    blocks = main.body.blocks
    if len(blocks) != 1 or not all(isinstance(b, relax.VarBinding) for b in blocks[0].bindings):
        return module
    taken = {param.name for param in main.params}
    replaced: dict[int, Expr] = {}
    bindings = []
    for binding in blocks[0].bindings:
        var, name, count = binding.var, binding.var.name, 0
        while name in taken:
            count += 1
            name = f"{binding.var.name}_{count}"
        taken.add(name)
        value = substitute(binding.value, replaced) if replaced else binding.value
        if count:
            var = type(var)(name, var.ty)
            replaced[hash(binding.var)] = var
        same = var is binding.var and value is binding.value
        bindings.append(binding if same else relax.VarBinding(var, value))
    if not replaced:
        return module
    block = (
        relax.DataflowBlock(bindings) if isinstance(blocks[0], relax.DataflowBlock) else relax.BindingBlock(bindings)
    )
    body = relax.BlockBuilder().normalize(relax.SeqExpr([block], substitute(main.body.body, replaced)))
    result = module.clone()
    new = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs, main.span)
    result.update_func(module.get_global_var("main"), new)
    return result


name_variables = tvm.transform.module_pass(_name_variables, opt_level=0, name="name_variables")
