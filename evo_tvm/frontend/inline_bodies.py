"""Replace operators by the bodies that ONNX's schemas define for them: Celu(x) => max(x, 0) + min(elu(x), 0)."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from evo_tvm.frontend.check_operators import is_importable


def inline_bodies(model: ir.Model) -> bool:
    """Inline the bodies of the operators of `model` that have no importer, in place; return whether there were any."""
    found = [(node, schema) for node in _nodes_without_importer(model) if (schema := _schema(model, node)) is not None]
    inlined = False
    for number, (node, schema) in enumerate(found):
        _add_defaults(node, schema)
        function = _body(model, node, schema)
        if function is None:
            continue
        # Graphs among the attributes are in the body already; the inliner knows no references to graphs.
        for name in [name for name, value in node.attributes.items() if value.type == ir.AttributeType.GRAPH]:
            del node.attributes[name]
        # A body of its own for each node: some depend on the types of the operands, and on which are left out.
        node.overload = function.overload = f"body{number}"
        function.domain, function.name = node.domain, node.op_type
        function.opset_imports.update(model.opset_imports)
        model.functions[function.identifier()] = function
        inlined = True
    if inlined:
        common.InlinePass()(model)
    return inlined


def operators_with_body(model: ir.Model) -> set[tuple[str, str]]:
    """Return the operators (domain, name) of `model` that have no importer but a body in their schema."""
    return {(node.domain, node.op_type) for node in _nodes_without_importer(model) if _schema(model, node) is not None}


def _nodes_without_importer(model: ir.Model) -> list[ir.Node]:
    """Return the nodes of `model` and its nested graphs whose operator has no importer."""
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    return [node for node in nodes if not is_importable(node.domain, node.op_type)]


def _schema(model: ir.Model, node: ir.Node) -> onnx.defs.OpSchema | None:
    """Return the schema of `node` where it holds a body."""
    try:
        schema = onnx.defs.get_schema(node.op_type, model.opset_imports.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError:
        return None
    return schema if schema.has_function or schema.has_context_dependent_function else None


def _add_defaults(node: ir.Node, schema: onnx.defs.OpSchema) -> None:
    """Write out the attributes of `node` that have a default: a body refers to them."""
    for name, attribute in schema.attributes.items():
        if name not in node.attributes and attribute.default_value.type:
            node.attributes.add(ir.serde.deserialize_attribute(attribute.default_value))


def _body(model: ir.Model, node: ir.Node, schema: onnx.defs.OpSchema) -> ir.Function | None:
    """Return the body of `node` for the operator set of `model`, or None where the schema gives none for it."""
    version = model.opset_imports.get(node.domain, 1)
    if schema.has_context_dependent_function:
        known = [candidate for candidate in schema.context_dependent_function_opset_versions if candidate <= version]
        types = [_type(value).SerializeToString() for value in node.inputs]
        message = ir.serde.serialize_node(node).SerializeToString()
        get = schema.get_context_dependent_function_with_opset_version
        data = get(max(known), message, types) if known else b""
    else:
        known = [candidate for candidate in schema.function_opset_versions if candidate <= version]
        data = schema.get_function_with_opset_version(max(known)) if known else b""
    proto = onnx.FunctionProto()
    proto.ParseFromString(data)
    if not proto.node:
        return None
    # Bodies compute only the outputs that the node asks for, and still list the others.
    del proto.output[len(node.outputs) :]
    made = {output for inner in proto.node for output in inner.output}
    proto.node.extend(
        onnx.helper.make_node("Constant", [], [output], value_int=0) for output in proto.output if output not in made
    )
    return ir.serde.deserialize_function(proto)


def _type(value: ir.Value | None) -> onnx.TypeProto:
    """Return the type of an operand; empty where it is left out or not known."""
    if value is None or value.type is None:
        return onnx.TypeProto()
    proto = ir.serde.serialize_type(value.type)
    if value.shape is not None:
        ir.serde.serialize_shape_into(proto, value.shape)
    return proto
