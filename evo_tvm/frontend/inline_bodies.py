"""Replace operators by the bodies that ONNX's schemas define for them: Celu(x) => max(x, 0) + min(elu(x), 0)."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_ir as ir
from onnx.inliner import inline_selected_functions

# Bytes; larger weights do not pass through the message that onnx's inliner reads and writes.
_LARGE = 1024


def inline_bodies(model: ir.Model, operators: Sequence[tuple[str, str]]) -> bool:
    """Inline `operators` (domain, name) of `model`, in place; return whether there was anything to do."""
    if not operators:
        return False
    _add_defaults(model, set(operators))
    large = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.nbytes > _LARGE
    }
    inputs = len(model.graph.inputs)
    for name in large:
        value = model.graph.initializers.pop(name)
        model.graph.inputs.append(value)
    proto = ir.serde.serialize_model(model)
    try:
        inlined = inline_selected_functions(proto, list(operators), exclude=False, inline_schema_functions=True)
    finally:
        del model.graph.inputs[inputs:]
    _take_over(model, inlined, large)
    return True


def _add_defaults(model: ir.Model, operators: set[tuple[str, str]]) -> None:
    """Write out the default attributes of `operators`: the inliner leaves references to those that are absent empty."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if (node.domain, node.op_type) not in operators:
            continue
        schema = onnx.defs.get_schema(node.op_type, model.opset_imports.get(node.domain, 1), node.domain)
        for name, attribute in schema.attributes.items():
            if name not in node.attributes and attribute.default_value.type:
                node.attributes.add(ir.serde.deserialize_attribute(attribute.default_value))


def _take_over(model: ir.Model, proto: onnx.ModelProto, large: dict[str, ir.TensorProtocol]) -> None:
    """Make `model` what `proto` is, with the weights `large` put back."""
    new = ir.serde.deserialize_model(proto)
    for value in [value for value in new.graph.inputs if value.name in large]:
        new.graph.inputs.remove(value)
        value.const_value = large[str(value.name)]
        new.graph.register_initializer(value)
    model.graph = new.graph
    model.opset_imports.update(new.opset_imports)
