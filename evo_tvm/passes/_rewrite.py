"""The rewriter under every pass: rules of pattern, check and rewrite, applied in one walk over the bindings.

Relax's own pattern language and mutators cost milliseconds a match, mostly spent inferring the types of convolutions
again. A `Graph` reads a function's bindings into Python once, hands each to the rules whose roots name its operator,
keeps the types that are known, and writes a new function only when something changed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import tvm
from tvm import relax
from tvm.ir import Call, Expr, GenericConst

from evo_tvm.passes._values import TUPLE_ITEM, operator_name

Found = TypeVar("Found")

__all__ = [
    "TUPLE_ITEM",
    "Graph",
    "Refusal",
    "Rule",
    "operator_name",
    "refusals",
    "retyped",
    "rewriting_pass",
    "substitute",
]

# Classes of expressions are final: comparing `type` spares the slow `isinstance` of TVM's objects.
_OPAQUE = (relax.If, relax.Function, relax.SeqExpr)
_VARIABLES = (relax.Var, relax.DataflowVar)

#: How often a pass may walk a function before it is taken for a rule that undoes another.
MAX_WALKS = 64


@dataclass(frozen=True)
class Refusal:
    """A place that looked like a pass's pattern and was left alone: which pass, which variable, and why."""

    pass_name: str
    variable: str
    reason: str


_refusals: ContextVar[list[Refusal] | None] = ContextVar("evo_tvm_refusals", default=None)


@contextmanager
def refusals() -> Iterator[list[Refusal]]:
    """Collect the refusals of the passes that run inside the block, each once."""
    found: list[Refusal] = []
    token = _refusals.set(found)
    try:
        yield found
    finally:
        _refusals.reset(token)


class Rule(ABC, Generic[Found]):
    """One rewrite. `match` finds the pattern, `check` says why not (None: go ahead), `rewrite` gives the new value."""

    #: Operators that the last binding of the pattern may have ("tuple_get_item" for an item of a tuple);
    #: empty: every operator.
    roots: ClassVar[tuple[str, ...]] = ()

    def start(self) -> None:
        """Forget what the last walk over the function left; most rules keep nothing."""

    @abstractmethod
    def match(self, graph: Graph, value: Expr) -> Found | None:
        """What the pattern binds when it ends at `value`, else None."""

    def check(self, graph: Graph, found: Found) -> str | None:
        """Why the match must stay as it is; None when it may be rewritten."""
        return None

    @abstractmethod
    def rewrite(self, graph: Graph, found: Found) -> Expr:
        """The value that takes the root's place; operands that are calls are bound through `graph.emit`."""


@dataclass(slots=True)
class _Node:
    """`var = value`, the binding that it was read from (used again where nothing changed), and what the value reads.

    `reads` has a variable as often as it is read. `opaque`: the value's variables cannot be replaced.
    """

    var: relax.Var
    value: Expr
    binding: relax.Binding | None
    reads: list[int]
    opaque: bool


class Graph:
    """One Relax function while it is being rewritten.

    What rules ask: who made this value (`producer`, `item`), does anything else read it (`only_use`), which variable
    is being rewritten (`root`). What they do: `emit` a call and get a variable for it.
    """

    def __init__(self, function: relax.Function, builder: relax.BlockBuilder, module: tvm.IRModule) -> None:
        self.module = module
        self.root: relax.Var | None = None
        self.block = 0  # number of the block being rewritten, outside which its dataflow variables are not seen
        self._function = function
        self._builder = builder
        # Keys are hash(var), the address of the C++ object: comparing two wrappers of one variable is slow.
        self._value_of: dict[int, Expr] = {}
        self._uses: dict[int, int] = {}
        self._readers: dict[int, list[Expr]] | None = None  # made when a rule first asks in a walk
        self._replaced: dict[int, Expr] = {}
        self._pinned: set[int] = set()  # read where nothing is rewritten: inside branches, closures and match_cast
        self._returned = [hash(var) for var in relax.analysis.free_vars(function.body.body)]
        self._refused: list[Refusal] = []  # of the present walk: only what the last one refuses is final
        self._block: list[_Node] = []
        self._blocks = [
            (isinstance(block, relax.DataflowBlock), [_node(b.var, b.value, b) for b in block.bindings])
            for block in function.body.blocks
        ]

    @property
    def root_name(self) -> str:
        """The name of the variable being rewritten."""
        return "" if self.root is None else str(self.root.name)

    def producer(self, expr: Expr, *operators: str) -> Call | None:
        """The call (of one of `operators`, if given) that computes `expr`, where that is a variable of this block."""
        value = self._value_of.get(hash(expr)) if isinstance(expr, relax.Var) else None
        return value if isinstance(value, Call) and (not operators or operator_name(value) in operators) else None

    def item(self, expr: Expr) -> relax.TupleGetItem | None:
        """The item of a tuple that `expr` is a variable of, if it is one."""
        value = self._value_of.get(hash(expr)) if isinstance(expr, relax.Var) else None
        return value if isinstance(value, relax.TupleGetItem) else None

    def only_use(self, expr: Expr) -> bool:
        """Whether nothing but the one that asks reads `expr`; perhaps false during the walk that makes it so."""
        return self._uses.get(hash(expr), 0) <= 1

    def readers(self, expr: Expr) -> list[Expr] | None:
        """The values that read a variable when the walk began; None where the function returns it, or emitted ones."""
        if self._readers is None:
            self._readers = {hash(node.var): [] for _, nodes in self._blocks for node in nodes}
            for _, nodes in self._blocks:
                for node in nodes:
                    for read in node.reads:
                        self._readers.setdefault(read, []).append(node.value)
        return None if hash(expr) in self._returned else self._readers.get(hash(expr))

    def emit(self, call: Expr, name: str = "lv") -> relax.Var:
        """Bind a call whose operands are variables, constants and tuples of them, ahead of the root; its variable."""
        call = self.typed(call)
        var = relax.DataflowVar(name, call.ty)
        self._value_of[hash(var)] = call
        self._uses[hash(var)] = 0
        node = _node(var, call)
        self._add_uses(node.reads)
        self._block.append(node)
        return var

    def typed(self, expr: Expr) -> Expr:
        """`expr` with its type filled in. That is slow for convolutions and pools: build those with `retyped`."""
        return self._builder.normalize(expr) if expr.ty.is_missing() else expr

    def run(self, rules: Sequence[Rule[Any]], pass_name: str) -> relax.Function:
        """Walk until no rule fires; the function itself when nothing ever did."""
        everywhere = [rule for rule in rules if not rule.roots]
        by_root = {
            root: [rule for rule in rules if root in rule.roots or not rule.roots]
            for root in {root for rule in rules for root in rule.roots}
        }
        changed = self._drop_dead()
        for _ in range(MAX_WALKS):
            for rule in rules:
                rule.start()
            fired = self._walk(by_root, everywhere, pass_name)
            fired |= self._rename_outputs()
            if not fired:
                _report(self._refused)
                return self._build() if changed else self._function
            changed = True
            self._drop_dead()
        raise RuntimeError(f"{pass_name} does not come to an end: its rules undo each other")

    def _walk(self, by_root: dict[str, list[Rule[Any]]], everywhere: list[Rule[Any]], pass_name: str) -> bool:
        self._count()
        self._replaced.clear()
        self._refused.clear()
        fired = False
        for position, (dataflow, nodes) in enumerate(self._blocks):
            self.block, self._block, self._value_of = position, [], {}
            for node in nodes:
                if node.opaque:
                    self._block.append(node)
                    continue
                value = substitute(node.value, self._replaced) if self._replaced else node.value
                if dataflow:
                    self.root = node.var
                    value = self._apply(by_root, everywhere, value, pass_name)
                    if isinstance(value, relax.Var | GenericConst) and isinstance(node.var, relax.DataflowVar):
                        self._replaced[hash(node.var)] = value
                        self._uses[hash(value)] = self._uses.get(hash(value), 0) + self._uses.get(hash(node.var), 0)
                        if hash(node.var) not in self._pinned:
                            fired = True
                            continue
                self._value_of[hash(node.var)] = value
                if value is not node.value:
                    fired = True
                    node = _node(node.var, value)
                    self._add_uses(node.reads)
                self._block.append(node)
            self._blocks[position] = (dataflow, self._block)
        return fired

    def _apply(
        self, by_root: dict[str, list[Rule[Any]]], everywhere: list[Rule[Any]], value: Expr, pass_name: str
    ) -> Expr:
        for _ in range(MAX_WALKS):
            for rule in by_root.get(operator_name(value), everywhere):
                found = rule.match(self, value)
                if found is None:
                    continue
                reason = rule.check(self, found)
                if reason is None:
                    value = self.typed(rule.rewrite(self, found))
                    break
                self._refused.append(Refusal(pass_name, self.root_name, reason))
            else:
                return value
        raise RuntimeError(f"{pass_name} does not come to an end at {self.root_name}")

    def _count(self) -> None:
        """Find how often every variable is read, and which must stay because opaque values read them."""
        self._uses = {}
        self._readers = None
        self._pinned = set()
        for _, nodes in self._blocks:
            for node in nodes:
                if node.opaque:
                    self._pinned.update(node.reads)
                self._add_uses(node.reads)
        self._add_uses(self._returned)

    def _add_uses(self, keys: list[int]) -> None:
        for key in keys:
            self._uses[key] = self._uses.get(key, 0) + 1

    def _drop_dead(self) -> bool:
        """Remove the bindings of dataflow blocks that nothing reads."""
        live = set(self._returned)
        dropped = False
        for position in reversed(range(len(self._blocks))):
            dataflow, nodes = self._blocks[position]
            kept = []
            for node in reversed(nodes):
                if dataflow and hash(node.var) not in live and not isinstance(node.binding, relax.MatchCast):
                    dropped = True
                    continue
                kept.append(node)
                live.update(node.reads)
            self._blocks[position] = (dataflow, kept[::-1])
        return dropped

    def _rename_outputs(self) -> bool:
        """`lv = f(x); gv = lv` => `gv = f(x)` where gv leaves the dataflow block."""
        renamed = False
        for position, (dataflow, nodes) in enumerate(self._blocks):
            defined = {hash(node.var) for node in nodes} - self._pinned
            aliases: dict[int, Expr] = {}
            for node in nodes:
                if isinstance(node.value, relax.DataflowVar) and not isinstance(node.var, relax.DataflowVar):
                    if dataflow and hash(node.value) in defined:
                        aliases.setdefault(hash(node.value), node.var)
            if not aliases:
                continue
            renamed = True
            kept = []
            for node in nodes:
                var, value = aliases.get(hash(node.var), node.var), substitute(node.value, aliases)
                if value is node.var:
                    continue
                same = value is node.value and var is node.var
                kept.append(node if same else _node(var, value))
            self._blocks[position] = (dataflow, kept)
        return renamed

    def _build(self) -> relax.Function:
        blocks = []
        for dataflow, nodes in self._blocks:
            bindings = [node.binding or relax.VarBinding(node.var, node.value) for node in nodes]
            if bindings:
                blocks.append(relax.DataflowBlock(bindings) if dataflow else relax.BindingBlock(bindings))
        old = self._function
        body = self._builder.normalize(relax.SeqExpr(blocks, old.body.body))
        return relax.Function(old.params, body, old.ret_ty, old.is_pure, old.attrs, old.span)


def rewriting_pass(name: str, rules: Callable[[], Sequence[Rule[Any]]]) -> tvm.ir.transform.Pass:
    """A module pass that applies `rules()`, made anew for each function, to every Relax function of a module."""

    def transform(module: tvm.IRModule, _context: tvm.ir.transform.PassContext) -> tvm.IRModule:
        builder = relax.BlockBuilder()
        changed: dict[tvm.ir.GlobalVar, relax.Function] = {}
        for global_var, function in module.functions_items():
            if isinstance(function, relax.Function) and isinstance(function.body, relax.SeqExpr):
                new = Graph(function, builder, module).run(rules(), name)
                if new is not function:
                    changed[global_var] = new
        if not changed:
            return module
        result = module.clone()
        for global_var, function in changed.items():
            result.update_func(global_var, function)
        return result

    return tvm.transform.module_pass(transform, opt_level=0, name=name)


def retyped(call: Call, args: Sequence[Expr], attrs: object = None) -> Call:
    """`call` with other operands (and attributes), where its result keeps its shape and dtype: type and span stay."""
    return Call(call.op, list(args), call.attrs if attrs is None else attrs, call.ty_args, call.span, call.ty)


def _report(refused: list[Refusal]) -> None:
    collected = _refusals.get()
    if collected is not None:
        collected.extend(dict.fromkeys(refused))


def _node(var: relax.Var, value: Expr, binding: relax.Binding | None = None) -> _Node:
    opaque = type(value) in _OPAQUE or type(binding) is relax.MatchCast
    reads = relax.analysis.free_vars(value) if opaque else _variables(value)
    return _Node(var, value, binding, [hash(read) for read in reads], opaque)


def _operands(value: Expr) -> list[Expr]:
    kind = type(value)
    if kind is Call or kind is relax.Tuple:
        operands: list[Expr] = (value.args if kind is Call else value.fields)[:]  # iterating takes thrice as long
        return operands
    return [value.tuple_value] if kind is relax.TupleGetItem else []


def _variables(value: Expr) -> list[relax.Var]:
    if type(value) in _VARIABLES:
        return [value]
    return [var for operand in _operands(value) for var in _variables(operand)]


def substitute(value: Expr, replaced: dict[int, Expr]) -> Expr:
    """`value` with replaced variables put in; the same object when it has none."""
    if type(value) in _VARIABLES:
        return replaced.get(hash(value), value)
    old = _operands(value)
    if not old:
        return value
    new = [substitute(operand, replaced) for operand in old]
    if all(a is b for a, b in zip(old, new, strict=True)):
        return value
    if isinstance(value, Call):
        return retyped(value, new)
    return relax.Tuple(new, value.span) if isinstance(value, relax.Tuple) else relax.TupleGetItem(new[0], value.index)
