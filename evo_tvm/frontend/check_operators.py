"""Find every operator of a model that cannot be imported, before the import starts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import onnx
import onnx_ir as ir

from evo_tvm.errors import UnsupportedOperatorError

_ONNX_DOMAINS = ("", "ai.onnx")
_CONTRIB_DOMAIN = "com.microsoft"
# These importers read an operator of com.microsoft and its namesake of ONNX alike; other namesakes differ.
_SAME_IN_CONTRIB = frozenset({"Gelu", "QuantizeLinear", "DequantizeLinear"})
# These importers read the operator of com.microsoft; ONNX has another operator of that name.
_CONTRIB_ONLY = frozenset({"Attention"})
# The importer takes it for the identity; where it is, a rewrite has removed it already.
_IMPORTED_WRONGLY = frozenset({"Dropout"})
# Operators that the importer treats outside its table.
_BUILT_IN = frozenset({"Constant", "If"})
_MAX_NODES_SHOWN = 5
_NONE: Mapping[tuple[str, str], str] = MappingProxyType({})


@dataclass(frozen=True, order=True)
class UnsupportedOperator:
    """An operator that cannot be imported, the nodes that use it, and where it is known why they cannot."""

    domain: str
    op_type: str
    nodes: tuple[str, ...]
    reason: str = ""

    def __str__(self) -> str:
        name = f"{self.domain}::{self.op_type}" if self.domain else self.op_type
        shown = ", ".join(self.nodes[:_MAX_NODES_SHOWN])
        more = f" and {len(self.nodes) - _MAX_NODES_SHOWN} more" if len(self.nodes) > _MAX_NODES_SHOWN else ""
        return f"{name} ({len(self.nodes)}x: {shown}{more}{': ' if self.reason else ''}{self.reason})"


def check_operators(model: ir.Model, where: object = None, reasons: Mapping[tuple[str, str], str] = _NONE) -> None:
    """Raise UnsupportedOperatorError, naming every operator that cannot be imported and its nodes, sorted.

    where: the file, for the message. reasons: why an operator was not rewritten, by domain and name.
    """
    unsupported = find_unsupported(model, reasons=reasons)
    if unsupported:
        raise UnsupportedOperatorError(
            f"{len(unsupported)} unsupported operator{'s' if len(unsupported) > 1 else ''}: "
            + "; ".join(map(str, unsupported)),
            where=where,
            hint="Export the model without them, or cut those nodes off with onnx.utils.extract_model.",
        )


def find_unsupported(
    model: ir.Model,
    rewritten: Collection[tuple[str, str]] = (),
    reasons: Mapping[tuple[str, str], str] = _NONE,
) -> tuple[UnsupportedOperator, ...]:
    """Return the operators of `model` and of its nested graphs that cannot be imported, sorted by domain and name.

    rewritten: operators (domain, name) that count as supported because they will be rewritten first.
    """
    nodes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        key = (node.domain, node.op_type)
        if key not in rewritten and key not in model_functions(model) and not is_importable(*key):
            nodes[key].append(str(node.name))
    return tuple(UnsupportedOperator(*key, tuple(names), reasons.get(key, "")) for key, names in sorted(nodes.items()))


def model_functions(model: ir.Model) -> set[tuple[str, str]]:
    """Return the operators (domain, name) that `model` defines itself."""
    return {(domain, name) for domain, name, _ in model.functions}


def is_importable(domain: str, op_type: str) -> bool:
    """Whether there is an importer for operator `op_type` of `domain`."""
    if domain in _ONNX_DOMAINS:
        return op_type in _standard_operators()
    return domain == _CONTRIB_DOMAIN and op_type in _contrib_operators()


@cache
def _standard_operators() -> frozenset[str]:
    """Return the operators of ONNX itself that can be imported."""
    return frozenset(_importers()) & _onnx_operators() - _CONTRIB_ONLY - _IMPORTED_WRONGLY | _BUILT_IN


@cache
def _contrib_operators() -> frozenset[str]:
    """Return the operators of com.microsoft that can be imported: those in TVM's table that ONNX does not have."""
    return frozenset(_importers()) - _onnx_operators() | _SAME_IN_CONTRIB | _CONTRIB_ONLY


@cache
def _onnx_operators() -> frozenset[str]:
    """Return the names of all operators of ONNX's own domain."""
    return frozenset(schema.name for schema in onnx.defs.get_all_schemas() if schema.domain in _ONNX_DOMAINS)


def _importers() -> Iterable[str]:
    """Return the names in the importer's own table (TVM is loaded only now: it takes seconds)."""
    from evo_tvm.frontend.import_graph import converters

    return converters()
