"""Which nodes of a float model are computed in integers, which tensors are quantized for them, and what stays in float.

A layer is a node with what is fused behind it: Conv, Gemm, MatMul (constant weights) or Add with the Relu or Clip that
alone reads them. Its inputs and its output are quantized, nothing in between. Nodes that only move values (MaxPool,
Reshape, Concat, ...) follow their neighbours, and share one scale and zero point between input and output.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import onnx_ir as ir

from evo_tvm.errors import UsageError
from evo_tvm.quantize.constants import WEIGHTED, attribute_int, constant_input, only_consumer

#: Operators that only move values, or choose among them, and which of their inputs hold values.
_MOVES = {
    **dict.fromkeys(("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Identity"), 1),
    **dict.fromkeys(("MaxPool", "Resize", "Pad", "DepthToSpace", "SpaceToDepth", "Expand", "Tile", "Gather"), 1),
    "Concat": None,
}
_POOLS = ("AveragePool", "GlobalAveragePool")
#: Functions of one tensor, element by element, that may gate it: x * sigmoid(x).
_UNARY = frozenset(
    "Sigmoid HardSigmoid HardSwish Tanh Softplus Relu Clip Erf Exp Neg Add Sub Mul Div Gelu Elu LeakyRelu".split()
)


@dataclass(frozen=True)
class Layer:
    """A node in integers. inputs: the activations it reads. fused: the nodes behind it that it takes along.

    output: what leaves it; `rounded` is false where that stays in float, as the scores of a classifier do.
    """

    node: ir.Node
    inputs: tuple[ir.Value, ...]
    fused: tuple[ir.Node, ...] = ()
    rounded: bool = True

    @property
    def name(self) -> str:
        """The name of the node."""
        return str(self.node.name)

    @property
    def weighted(self) -> bool:
        """Whether it has constant weights."""
        return self.node.op_type in WEIGHTED

    @property
    def moves(self) -> bool:
        """Whether it only moves values."""
        return self.node.op_type in _MOVES

    @property
    def outputs(self) -> tuple[ir.Value, ...]:
        """What leaves it."""
        values = (self.fused[-1] if self.fused else self.node).outputs
        return tuple(value for value in values if value.uses() or value.is_graph_output())


@dataclass(frozen=True)
class Choice:
    """layers: in the order of the graph. left: the other nodes that could have been layers -> why they are not.

    tensors: what is quantized -> the first tensor of those that share its scale and zero point. kept: nodes that were
    asked to stay in float, and those that move values for them alone; no input of theirs is rounded for them.
    """

    layers: tuple[Layer, ...]
    left: Mapping[str, str]
    tensors: Mapping[ir.Value, ir.Value]
    kept: Set[ir.Node]

    def group(self, value: ir.Value) -> list[ir.Value]:
        """The tensors that share the scale and zero point of `value`."""
        return [other for other, first in self.tensors.items() if first is self.tensors[value]]


def choose_layers(
    model: ir.Model,
    skip: Sequence[str] = (),
    skip_operators: Sequence[str] = (),
    keep_first: bool = False,
    keep_last: bool = False,
) -> Choice:
    """What to quantize in the prepared `model`.

    skip: names of nodes, or patterns of them; skip_operators: operators; keep_first, keep_last: the first, the last
    node with weights. Raises UsageError: a name or operator that the model does not have.
    """
    nodes = list(model.graph)
    kept = _kept(nodes, skip, skip_operators, keep_first, keep_last)
    left: dict[str, str] = {}
    layers: dict[ir.Node, Layer] = {}
    inside: set[ir.Node] = set()
    for node in nodes:
        if node.domain or node.op_type not in (*WEIGHTED, *_POOLS, "Add", "Mul") or node in inside:
            continue
        reason = kept.get(node) or _refusal(node)
        if reason is not None:
            left[str(node.name)] = reason
            continue
        inputs = tuple(value for value in node.inputs if value is not None and not _is_constant(value))
        if node.op_type not in WEIGHTED and not any(_comes_from(value, layers) for value in inputs):
            left[str(node.name)] = "none of its inputs comes from a layer in integers"
            continue
        fused = _fused(node, kept)
        layers[node] = Layer(node, inputs, fused)
        for behind in fused:
            layers[behind] = layers[node]
            inside.add(behind)
    left |= {str(n.name): reason for n, reason in kept.items() if n.op_type in _MOVES and not n.domain and _values(n)}
    floats = _with_moves_before(nodes, kept)
    _add_moves(nodes, layers, floats)
    found = _round(dict.fromkeys(layers[node] for node in nodes if node in layers), floats)
    return Choice(found, left, _share(found), floats)


def _kept(
    nodes: Sequence[ir.Node], skip: Sequence[str], operators: Sequence[str], keep_first: bool, keep_last: bool
) -> dict[ir.Node, str]:
    """The nodes that the options keep in float, and why."""
    kept: dict[ir.Node, str] = {}
    for what, wanted, option in (("name", skip, "skip"), ("op_type", operators, "skip_operators")):
        names = {node: str(getattr(node, what)) for node in nodes}
        for text in wanted:
            found = [node for node, name in names.items() if name == text or fnmatchcase(name, text)]
            if not found:
                close = difflib.get_close_matches(text, set(names.values()), n=3)
                hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else None
                kind = "node" if what == "name" else "operator"
                raise UsageError(f"the model has no {kind} '{text}'", where=option, hint=hint)
            kept |= dict.fromkeys(found, "it is to be skipped")
    weighted = [node for node in nodes if node.op_type in WEIGHTED and _refusal(node) is None]
    if keep_first and weighted:
        kept[weighted[0]] = "the first layer is kept"
    if keep_last and weighted:
        kept[weighted[-1]] = "the last layer is kept"
    return kept


def _refusal(node: ir.Node) -> str | None:
    """Why `node` cannot be a layer, or None."""
    if node.outputs[0].dtype != ir.DataType.FLOAT:
        return "it does not compute in float32"
    if node.op_type in WEIGHTED:
        weights = constant_input(node, 1)
        if weights is None or _is_constant(node.inputs[0]):
            return "its weights are not constant"
        if node.op_type == "MatMul" and weights.ndim != 2:
            return "its weights are not a matrix"
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            bias = constant_input(node, 2)
            if bias is None or bias.ndim != 1:
                return "its bias is not one constant for each channel"
        if attribute_int(node, "transA", 0):
            return "its input is transposed"
        return None
    if node.op_type in ("Add", "Mul") and any(_is_constant(value) for value in node.inputs):
        return "an operand is constant"
    if node.op_type == "Mul" and any(_gates(a, b) for a, b in (node.inputs[:2], node.inputs[1::-1])):
        return "it gates a tensor by a function of itself"
    return None


def _gates(value: ir.Value | None, other: ir.Value | None) -> bool:
    """Whether `value` is a function of `other` alone, element by element."""
    while value is not None and value is not other:
        node = value.producer()
        if node is None or node.op_type not in _UNARY:
            return False
        inputs = [v for v in node.inputs if v is not None and not _is_constant(v)]
        value = inputs[0] if len(inputs) == 1 else None
    return value is other and value is not None


def _comes_from(value: ir.Value, layers: Mapping[ir.Node, Layer]) -> bool:
    """Whether a layer makes `value`, or what nodes that move values make it of."""
    node = value.producer()
    while node is not None and node not in layers and node.op_type in _MOVES and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node in layers


def _fused(node: ir.Node, kept: Mapping[ir.Node, str]) -> tuple[ir.Node, ...]:
    """The nodes behind `node` that are computed with it: a constant bias behind a MatMul, then a Relu or Clip."""
    if node.op_type in _POOLS:
        return ()
    found: list[ir.Node] = []
    after = only_consumer(node.outputs[0])
    if node.op_type == "MatMul" and after is not None and after.op_type == "Add" and _has_constant(after):
        found.append(after)
        after = only_consumer(after.outputs[0])
    if after is not None and after not in kept and after.op_type in ("Relu", "Clip"):
        if all(_is_constant(value) for value in after.inputs[1:] if value is not None):
            found.append(after)
    return tuple(found)


def _with_moves_before(nodes: Sequence[ir.Node], kept: Iterable[ir.Node]) -> Set[ir.Node]:
    """`kept` and the nodes before them that move values for them alone."""
    found = set(kept)
    for node in reversed(nodes):
        users = {use.node for value in node.outputs for use in value.uses()}
        if node.op_type in _MOVES and users and users <= found and not _leaves(node):
            found.add(node)
    return frozenset(found)


def _add_moves(nodes: Sequence[ir.Node], layers: dict[ir.Node, Layer], kept: Set[ir.Node]) -> None:
    """Add the nodes that move values from or to layers to `layers`, until there are no more."""
    moves = [node for node in nodes if node.op_type in _MOVES and not node.domain and node not in kept]
    moves = [node for node in moves if _values(node)]
    while True:
        found = [node for node in moves if node not in layers and _touches(node, layers)]
        if not found:
            return
        layers |= {node: Layer(node, tuple(_values(node))) for node in found}


def _values(node: ir.Node) -> list[ir.Value]:
    """The inputs that `node`, one that moves values, moves; none where it does more than that."""
    values = [value for value in node.inputs[: _MOVES[node.op_type]] if value is not None]
    if any(_is_constant(value) or value.dtype != ir.DataType.FLOAT for value in values):
        return []
    if node.op_type == "Resize" and "mode" in node.attributes and node.attributes["mode"].as_string() == "cubic":
        return []  # overshoots
    if node.op_type == "Pad":
        mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "constant"
        fill = constant_input(node, 2)
        if mode == "constant" and len(node.inputs) > 2 and node.inputs[2] is not None and (fill is None or fill.any()):
            return []
    if node.op_type == "MaxPool" and len(node.outputs) > 1 and node.outputs[1].uses():
        return []
    return values


def _touches(node: ir.Node, layers: Mapping[ir.Node, Layer]) -> bool:
    """Whether `node` reads a layer, or all that read it are layers."""
    if any(value.producer() in layers for value in _values(node)):
        return True
    uses = [use.node for value in node.outputs for use in value.uses()]
    return bool(uses) and all(user in layers for user in uses)


def _round(layers: Iterable[Layer], kept: Set[ir.Node]) -> tuple[Layer, ...]:
    """`layers`; dense ones that no other reads, and all that only nodes in `kept` read, give floats."""
    layers = tuple(layers)
    read = {value for layer in layers for value in layer.inputs}

    def is_rounded(layer: Layer) -> bool:
        if layer.node.op_type in ("Gemm", "MatMul") and layer.outputs[0] not in read:
            return False
        users = {use.node for value in layer.outputs for use in value.uses()}
        leaves = any(value.is_graph_output() for value in layer.outputs)
        return leaves or not users or not users <= kept

    return tuple(replace(layer, rounded=is_rounded(layer)) for layer in layers)


def _share(layers: Iterable[Layer]) -> dict[ir.Value, ir.Value]:
    """Each tensor that is quantized, and the first of those that share its scale."""
    above: dict[ir.Value, ir.Value] = {}

    def first(value: ir.Value) -> ir.Value:
        while above[value] is not value:
            value = above[value]
        return value

    for layer in layers:
        quantized = [*layer.inputs, *(value for value in layer.outputs if layer.rounded)]
        for value in quantized:
            above.setdefault(value, value)
        if layer.moves:
            for value in quantized[1:]:
                above[first(value)] = first(quantized[0])
    return {value: first(value) for value in above}


def _leaves(node: ir.Node) -> bool:
    return any(value.is_graph_output() for value in node.outputs)


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and ir.convenience.get_const_tensor(value) is not None


def _has_constant(node: ir.Node) -> bool:
    return any(_is_constant(value) for value in node.inputs)
