"""Rewrite operators that TVM's importer lacks or imports badly into operators that it imports well.

QLinearConv(x, w)  =>  QuantizeLinear(Conv(DequantizeLinear(x), DequantizeLinear(w)))

The rewrites are in evo_tvm/frontend/operators. All of them work on ONNX, so that each can be tested against onnx's own
reference. An operator that has none, and has no importer, is replaced by the body that its schema defines for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from evo_tvm.frontend.clean_model import clean_model
from evo_tvm.frontend.inline_bodies import inline_bodies
from evo_tvm.frontend.operators import REWRITES
from evo_tvm.frontend.operators.builder import Builder, CannotRewrite

# A body may hold operators that have bodies, a Loop may hold Loops; more rounds than this mean a cycle of rewrites.
_MAX_ROUNDS = 8


def rewrite_operators(model: ir.Model) -> dict[tuple[str, str], str]:
    """Rewrite the operators of `model`, in place, until none is left to rewrite; `model` is clean before and after.

    Returns why operators (domain, name) that have a rewrite were left as they are.
    """
    reasons: dict[tuple[str, str], str] = {}
    for _ in range(_MAX_ROUNDS):
        reasons.clear()
        changed = _rewrite_graph(model.graph, model.opset_imports.get("", 1), reasons)
        changed |= inline_bodies(model)
        if not changed:
            break
        common.NameFixPass()(model)
        clean_model(model)
    return reasons


def _rewrite_graph(graph: ir.Graph, opset: int, reasons: dict[tuple[str, str], str]) -> bool:
    """Rewrite the nodes of `graph` and of the graphs nested in it; return whether any was, and note why others not."""
    changed = False
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                changed |= _rewrite_graph(attribute.as_graph(), opset, reasons)
        key = (node.domain, node.op_type)
        if key not in REWRITES:
            continue
        builder = Builder(node, opset)
        try:
            outputs = REWRITES[key](builder, node)
        except CannotRewrite as refusal:
            reasons[key] = str(refusal)
            continue
        _replace(graph, node, builder, outputs)
        changed = True
    return changed


def _replace(graph: ir.Graph, node: ir.Node, builder: Builder, outputs: Sequence[ir.Value]) -> None:
    """Put the nodes of `builder`, which compute `outputs`, in the place of `node`."""
    made = {output for new in builder.nodes for output in new.outputs}
    olds, news = [], []
    for old, new in zip(node.outputs, outputs, strict=False):
        if not (old.uses() or old.is_graph_output()):
            continue
        # A value from elsewhere, or one that stands for two outputs, keeps its name: hand it on through an Identity.
        news.append(new if new in made and new not in news else builder.op("Identity", new))
        olds.append(old)
    ir.convenience.replace_nodes_and_values(graph, node, [node], builder.nodes, olds, news)
