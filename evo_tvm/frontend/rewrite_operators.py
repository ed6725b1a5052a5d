"""Rewrite operators that TVM's importer lacks or imports badly into operators that it imports well.

QLinearConv(x, w)  =>  QuantizeLinear(Conv(DequantizeLinear(x), DequantizeLinear(w)))

The rewrites are in evo_tvm/frontend/operators. All of them work on ONNX, so that each can be tested against onnx's own
reference. An operator that has none, and has no importer, is replaced by the body that its schema defines for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from evo_tvm.frontend.check_operators import is_importable
from evo_tvm.frontend.clean_model import clean_model
from evo_tvm.frontend.inline_bodies import inline_bodies
from evo_tvm.frontend.operators import REWRITES
from evo_tvm.frontend.operators.builder import Builder, CannotRewrite

# A body may hold operators that have bodies, a Loop may hold Loops; more rounds than this mean a cycle of rewrites.
_MAX_ROUNDS = 8


def rewrite_operators(model: ir.Model) -> None:
    """Rewrite the operators of `model`, in place, until none is left to rewrite; `model` is clean before and after."""
    for _ in range(_MAX_ROUNDS):
        changed = _rewrite_graph(model.graph, model.opset_imports.get("", 1))
        changed |= inline_bodies(model, _operators_to_inline(model))
        if not changed:
            return
        common.NameFixPass()(model)
        clean_model(model)


def _rewrite_graph(graph: ir.Graph, opset: int) -> bool:
    """Rewrite the nodes of `graph` and of the graphs nested in it; return whether any was."""
    changed = False
    for node in graph:
        rewrite = REWRITES.get((node.domain, node.op_type))
        if rewrite is None:
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    changed |= _rewrite_graph(attribute.as_graph(), opset)
            continue
        builder = Builder(node, opset)
        try:
            outputs = rewrite(builder, node)
        except CannotRewrite:
            continue
        _replace(graph, node, builder, outputs)
        changed = True
    return changed


def _replace(graph: ir.Graph, node: ir.Node, builder: Builder, outputs: Sequence[ir.Value | None]) -> None:
    """Put the nodes of `builder`, which compute `outputs`, in the place of `node`."""
    made = {output for new in builder.nodes for output in new.outputs}
    olds, news = [], []
    for old, new in zip(node.outputs, outputs, strict=False):
        if new is None or not (old.uses() or old.is_graph_output()):
            continue
        # A value from elsewhere, or one that stands for two outputs, keeps its name: hand it on through an Identity.
        news.append(new if new in made and new not in news else builder.op("Identity", new))
        olds.append(old)
    ir.convenience.replace_nodes_and_values(graph, node, [node], builder.nodes, olds, news)


def _operators_to_inline(model: ir.Model) -> list[tuple[str, str]]:
    """Return the operators of `model` that have no importer but a body in their schema."""
    found = set()
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if is_importable(node.domain, node.op_type):
            continue
        try:
            schema = onnx.defs.get_schema(node.op_type, model.opset_imports.get(node.domain, 1), node.domain)
        except onnx.defs.SchemaError:
            continue
        if schema.has_function or schema.has_context_dependent_function:
            found.add((node.domain, node.op_type))
    return sorted(found)
