"""Gates as operators of the Relax module, and what the passes that insert them share.

`evo.gate.decide(logits, gate, kind, threshold)` gives the decisions of a gate, int32: 1 where it is on; of a gate of
channels a mask, float32, of 1 and 0 for each channel.
`evo.gate.select(decision, on, off)` is `on` where the decision is 1, else `off`; what only the other one needs is not
computed. `evo.gate.keep(x, mask)` is x where the mask is not 0, else 0; blocks of zeros are not computed.
`evo.gate.select_tiles(decisions, on, off, side)` is, tile by tile of an image, `on` where the decision is 1, else
`off`, or 0 where there is no `off`. The hook's own network is made of Relax's ordinary operators.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Call, Expr, StringImm

from evo_tvm.errors import UsageError
from evo_tvm.gates.hook import Hook
from evo_tvm.passes._values import constant, shape_of

DECIDE = "evo.gate.decide"
SELECT = "evo.gate.select"
KEEP = "evo.gate.keep"
SELECT_TILES = "evo.gate.select_tiles"


def gate_operator(value: Expr) -> str:
    """Which operator of a gate this is; "" for all else."""
    if isinstance(value, Call) and isinstance(value.op, tvm.ir.Op) and value.op.name == "relax.call_pure_packed":
        name = str(value.args[0].global_symbol)
        return name if name.startswith("evo.gate.") else ""
    return ""


def gate_attributes(call: Call) -> dict[str, object]:
    """What a gate's operator says beside its operands."""
    if gate_operator(call) == SELECT_TILES:
        return {"side": int(call.args[-1].value)}
    if gate_operator(call) != DECIDE:
        return {}
    _, _, gate, kind, threshold = call.args
    return {"gate": str(gate.value), "gate_kind": str(kind.value), "threshold": float(threshold.value)}


def gate_names(hooks: Sequence[Hook]) -> list[str]:
    """A name for each hook's gate: its site, with the kind behind it where a site has several."""
    sites = [hook.site for hook in hooks]
    names = [hook.site if sites.count(hook.site) == 1 else f"{hook.site}:{hook.kind}" for hook in hooks]
    for name in names:
        if names.count(name) > 1:
            raise UsageError("there are two hooks of one kind at this site", where=name, hint="Give one of them only.")
    return names


#: What a gate gives that decides once.
ONE_DECISION = relax.TensorType([1, 1], "int32")


def decide(logits: Expr, gate: str, kind: str, threshold: float, ty: relax.TensorType = ONE_DECISION) -> Call:
    """The decisions of a gate from its logits, as a tensor of type `ty`."""
    arguments = logits, StringImm(gate), StringImm(kind), tvm.tirx.const(threshold, "float64")
    return relax.call_pure_packed(DECIDE, *arguments, ty_args=[ty])


def select(decision: Expr, on: Expr, off: Expr) -> Call:
    """`on` or `off`, which have one type."""
    return relax.call_pure_packed(SELECT, decision, on, off, ty_args=[on.ty])


def keep(x: Expr, mask: Expr) -> Call:
    """x where the mask, (1, C, 1, 1), is not 0, else 0."""
    return relax.call_pure_packed(KEEP, x, mask, ty_args=[x.ty])


def select_tiles(decisions: Expr, on: Expr, off: Expr | None, side: int) -> Call:
    """Of each tile of `side` by `side` pixels `on`, or `off`, which is zero where it is None."""
    operands = [decisions, on] if off is None else [decisions, on, off]
    return relax.call_pure_packed(SELECT_TILES, *operands, tvm.tirx.const(side, "int64"), ty_args=[on.ty])


Emit = Callable[[Expr, str], relax.Var]
#: Called with `emit` and a hook's logits.
Then = Callable[[Emit, relax.Var], None]


@dataclass
class Insertion:
    """New bindings for a function: `after` a variable of this name, and what `wraps` one under its old name.

    after: called with `emit` once the variable is bound; wraps: called with `emit` and a variable that has the old
    value, gives the new value of the variable itself.
    """

    after: dict[str, list[Callable[[Emit], None]]] = field(default_factory=dict)
    wraps: dict[str, Callable[[Emit, relax.Var], Expr]] = field(default_factory=dict)

    def apply(self, function: relax.Function) -> relax.Function:
        """The function with all of that in its dataflow block."""
        builder = relax.BlockBuilder()
        (block,) = function.body.blocks
        bindings: list[relax.Binding] = []
        taken = {binding.var.name for binding in block.bindings}

        def fresh(name: str) -> str:
            """The name, with a number behind it where it is taken."""
            names = itertools.chain([name], (f"{name}.{i}" for i in itertools.count(1)))
            found = next(some for some in names if some not in taken)
            taken.add(found)
            return found

        def emit(value: Expr, name: str) -> relax.Var:
            value = builder.normalize(value)
            var = relax.DataflowVar(fresh(name), value.ty)
            bindings.append(relax.VarBinding(var, value))
            return var

        def follow(name: str) -> None:
            for call in self.after.get(name, ()):
                call(emit)

        for param in function.params:
            follow(param.name)
        for binding in block.bindings:
            name = binding.var.name
            if name in self.wraps:
                inner = relax.DataflowVar(fresh(f"{name}_on"), binding.var.ty)
                bindings.append(relax.VarBinding(inner, binding.value))
                binding = relax.VarBinding(binding.var, builder.normalize(self.wraps[name](emit, inner)))
            bindings.append(binding)
            follow(name)
        body = builder.normalize(relax.SeqExpr([relax.DataflowBlock(bindings)], function.body.body))
        return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs, function.span)


class Variables:
    """The variables of `main` by name, with the values that they are bound to."""

    def __init__(self, module: tvm.IRModule) -> None:
        self.main = module["main"]
        if len(self.main.body.blocks) != 1:
            raise UsageError("gates need a model that is one straight list of operators", where="main")
        self.vars: dict[str, relax.Var] = {param.name: param for param in self.main.params}
        self.values: dict[str, Expr] = {}
        for binding in self.main.body.blocks[0].bindings:
            self.vars[binding.var.name] = binding.var
            self.values[binding.var.name] = binding.value
        self.place = {name: i for i, name in enumerate(self.vars)}

    def named(self, name: str, what: str) -> relax.Var:
        """The variable of this name, which `what` names. Raises UsageError: there is none."""
        if name not in self.vars:
            raise UsageError(
                f"{what} {name!r} is no value of this model",
                hint="Hooks belong to one model: build and train them for this one.",
            )
        return self.vars[name]

    def feature(self, hook: Hook) -> relax.Var:
        """What the hook reads. Raises UsageError: the model has no such value."""
        return self.named(hook.feature, f"the feature of the hook at {hook.site}:")

    @property
    def gates(self) -> set[str]:
        """The names of gates that are there."""
        calls = (value for value in self.values.values() if gate_operator(value) == DECIDE)
        return {str(gate_attributes(call)["gate"]) for call in calls}

    def operands(self, value: Expr) -> list[str]:
        """Names of the variables that a value reads, in order, each as often as it is read."""
        if isinstance(value, relax.Var):
            return [value.name]
        if isinstance(value, Call):
            return [name for a in value.args for name in self.operands(a)]
        if isinstance(value, relax.Tuple):
            return [name for a in value.fields for name in self.operands(a)]
        return self.operands(value.tuple_value) if isinstance(value, relax.TupleGetItem) else []

    def ancestors(self, name: str) -> set[str]:
        """The variable and all that it is computed from."""
        found, left = {name}, [name]
        while left:
            value = self.values.get(left.pop())
            for operand in self.operands(value) if value is not None else ():
                if operand not in found:
                    found.add(operand)
                    left.append(operand)
        return found

    @property
    def output(self) -> relax.Var:
        """The one output. Raises UsageError: there are several."""
        result = self.main.body.body
        if not isinstance(result, relax.Var) or isinstance(result.ty, relax.TupleType):
            raise UsageError("an exit needs a model with one output")
        return result


class Networks:
    """The hooks' networks, each right behind the feature that it reads; hooks of one feature share its pool."""

    def __init__(self, variables: Variables, insertion: Insertion) -> None:
        self.variables, self.insertion = variables, insertion
        self.decisions: dict[str, relax.Var] = {}
        self._pooled: dict[str, relax.Var] = {}

    def decide(self, hook: Hook, gate: str, ty: relax.TensorType = ONE_DECISION) -> None:
        """Has the gate decide from the hook's logits; `decisions` has what it decided once that is bound."""

        def then(emit: Emit, logits: relax.Var) -> None:
            self.decisions[gate] = emit(decide(logits, gate, hook.kind, hook.threshold, ty), f"{gate}_gate")

        self.add(hook, gate, then)

    def add(self, hook: Hook, gate: str, then: Then) -> None:
        """Has the hook's logits, (1, K), computed, and `then` called with them."""
        feature = self.variables.feature(hook)
        shape = shape_of(feature)
        check_weights(hook, None if shape is None else shape[1:2])

        seen = f"{hook.feature}_seen"

        def write(emit: Emit) -> None:
            if hook.feature not in self._pooled:
                pooled = self.variables.vars.get(seen, feature)
                if pooled is feature and shape is not None and len(shape) == 4:
                    mean = relax.op.nn.adaptive_avg_pool2d(feature, (1, 1))
                    pooled = emit(relax.op.reshape(emit(mean, f"{hook.feature}_mean"), shape[:2]), seen)
                self._pooled[hook.feature] = pooled
            then(emit, dense_layers(emit, self._pooled[hook.feature], hook.weights, f"{gate}_hook"))

        behind = seen if seen in self.variables.vars else hook.feature
        self.insertion.after.setdefault(behind, []).append(write)


def dense_layers(emit: Emit, x: relax.Var, weights: Sequence[np.ndarray], name: str) -> relax.Var:
    """x W + b, with a ReLU between two such layers."""
    for place in range(0, len(weights), 2):
        if place:
            x = emit(relax.op.nn.relu(x), name)
        product = emit(relax.op.matmul(x, constant(weights[place], "float32")), name)
        x = emit(relax.op.add(product, constant(weights[place + 1], "float32")), name)
    return x


def check_weights(hook: Hook, channels: Iterable[int] | None) -> None:
    """Raises UsageError: the shapes of the hook's weights do not follow from each other, or from the feature."""
    shapes = [w.shape for w in hook.weights]
    size = next(iter(channels), None) if channels is not None else None
    for place in range(0, len(shapes), 2):
        if len(shapes) not in (2, 4) or len(shapes[place]) != 2 or shapes[place + 1] != shapes[place][1:]:
            raise UsageError(
                "the hook's weights do not fit each other",
                where=hook.site,
                expected="(C, K), (K,) or (C, H), (H,), (H, K), (K,)",
                got=", ".join(map(str, shapes)),
            )
        if size is not None and shapes[place][0] != size:
            raise UsageError(
                "the hook's weights do not fit its feature",
                where=f"{hook.site}, reading {hook.feature}",
                expected=f"{size} rows",
                got=f"{shapes[place][0]} rows",
                hint="Hooks belong to one model: build and train them for this one.",
            )
        size = shapes[place][1]


def outputs_of(hook: Hook) -> int:
    """K, the numbers that the hook's network gives."""
    return int(hook.weights[-1].shape[0])


def with_main(module: tvm.IRModule, main: relax.Function) -> tvm.IRModule:
    """The module with another main; the old one is left as it was."""
    result = module.clone()
    result.update_func(module.get_global_var("main"), main)
    return result


def chosen(hooks: Sequence[Hook], kind: str, variables: Variables) -> Iterator[tuple[Hook, str]]:
    """The hooks of a kind whose gates are not there yet, with the names of their gates."""
    names, there = gate_names(hooks), variables.gates
    return ((h, name) for h, name in zip(hooks, names, strict=True) if h.kind == kind and name not in there)


@dataclass(frozen=True)
class GatePass:
    """A pass over modules, called as TVM's are. Not one of TVM's: what they raise loses its class on the way."""

    name: str
    insert: Callable[[tvm.IRModule], tvm.IRModule]

    def __call__(self, module: tvm.IRModule) -> tvm.IRModule:
        return self.insert(module)
