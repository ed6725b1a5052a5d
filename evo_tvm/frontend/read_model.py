"""Read an ONNX file, and say plainly what is wrong with one that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx_ir.passes.common import CheckerPass

from evo_tvm.errors import ModelError

#: What `import_onnx` takes: the path of a file, or a model in memory.
ModelSource: TypeAlias = "str | os.PathLike[str] | onnx.ModelProto"

# Field numbers of onnx.ModelProto, and protobuf's wire types.
_MODEL_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})
# What onnx's checker refuses and we do not: operators that it does not know are reported by check_operators, all at
# once; inputs of unknown rank by fix_shapes; and outputs need no shape in the file.
_TOLERATED = ("No Op registered for", "Field 'shape' of 'type' is required but missing")
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5


def read_model(source: ModelSource) -> ir.Model:
    """Return the model at `source`; the data of external tensors is mapped from its files, not read.

    Raises
    ------
    ModelError: no such file, a folder, not ONNX, cut short, invalid, or external data that is missing, too short or
        outside the model's folder.
    """
    if isinstance(source, onnx.ModelProto):
        proto, folder, where = source, None, "the model"
    else:
        path = Path(source)
        proto, folder, where = _parse(path), path.parent, str(path)
    _check_header(proto, where)
    for tensor in _external_tensors(proto.graph):
        _check_external_data(tensor, folder, where)
    try:
        model = ir.serde.deserialize_model(proto)
    except Exception as error:
        raise _invalid(where, error) from error
    if folder is not None:
        ir.external_data.set_base_dir(model.graph, folder)
        _load_small_external_tensors(model)
    _check_graph(model, where)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        # Errors and profiles speak of nodes by name; one without is known by what it makes.
        node.name = node.name or next((output.name for output in node.outputs if output.name), node.op_type)
    return model


def _parse(path: Path) -> onnx.ModelProto:
    """Return the parsed file at `path`, external data left alone."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(
            "no such file", where=path, hint="Check the path; evo_tvm reads models in the ONNX format."
        ) from None
    except IsADirectoryError:
        models = sorted(entry.name for entry in path.glob("*.onnx"))
        hint = f"Name a file in it: {', '.join(models[:5])}." if models else "It holds no .onnx file."
        raise ModelError("is a folder, not an ONNX file", where=path, hint=hint) from None
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=path) from error
    if not data:
        raise ModelError("the file is empty", where=path, hint="Export or copy the model again.")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        missing = _missing_bytes(data)
        if missing:
            raise ModelError(
                f"the file is cut short: at least {missing:,} bytes are missing",
                where=path,
                hint="Copy or export the model again.",
            ) from None
        raise ModelError(
            "not an ONNX file", where=path, hint="Export the model to ONNX first, for example with torch.onnx.export."
        ) from None
    return proto


def _missing_bytes(data: bytes) -> int:
    """Return how many bytes the last top-level field of a ModelProto lacks; 0 when `data` is not a ModelProto."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        field, wire_type = tag >> 3, tag & 7
        if field not in _MODEL_FIELDS:
            return 0
        if wire_type == _VARINT:
            _, at = _read_varint(data, at)
        elif wire_type == _LENGTH_DELIMITED:
            length, at = _read_varint(data, at)
            at += length
        elif wire_type in (_FIXED64, _FIXED32):
            at += 8 if wire_type == _FIXED64 else 4
        else:
            return 0
    return at - len(data)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the base-128 number at `at`, and where it ends; one past the end of `data` when it is cut short."""
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
    return value, at + 1


def _check_header(proto: onnx.ModelProto, where: str) -> None:
    """Refuse what parses as protobuf and is no ONNX model: foreign files often do."""
    if not proto.HasField("graph") or not proto.graph.output:
        raise ModelError("not an ONNX model: it has no graph with outputs", where=where)
    if not proto.opset_import:
        raise ModelError(
            "the model does not say which operator set it uses; the file may be cut short",
            where=where,
            hint="Copy or export the model again.",
        )


def _external_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of `graph`, and of the graphs nested in it, whose data lies outside the model file."""
    yield from (tensor for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL)
    for node in graph.node:
        for attribute in node.attribute:
            tensors = (*attribute.tensors, attribute.t)
            yield from (tensor for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL)
            for nested in (*attribute.graphs, attribute.g):
                yield from _external_tensors(nested)


def _check_external_data(tensor: onnx.TensorProto, folder: Path | None, where: str) -> None:
    """Refuse external data that is missing, too short, or outside `folder` (a hostile model could read any file)."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    what = f"external data '{location}' of tensor '{tensor.name}'"
    if folder is None:
        raise ModelError(
            f"{what} cannot be found: a model in memory has no folder",
            where=where,
            hint="Pass the path of the model, or call onnx.load_external_data_for_model first.",
        )
    if not location:
        raise ModelError(f"tensor '{tensor.name}' has external data without a location", where=where)
    root = folder.resolve()
    data = (root / location).resolve()
    if Path(location).is_absolute() or not data.is_relative_to(root):
        raise ModelError(
            f"{what} is outside the model's folder",
            where=where,
            hint="Put the data file beside the model and save the model with a relative location.",
        )
    if not data.is_file():
        raise ModelError(f"{what} is missing", where=where, hint=f"Copy '{location}' into '{folder}'.")
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries["length"]) if "length" in entries else 0
    except ValueError:
        raise ModelError(f"{what} has an offset or length that is not a number", where=where) from None
    size = data.stat().st_size
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelError(
            f"{what} is cut short",
            where=where,
            expected=f"{offset + length:,} bytes",
            got=f"{size:,}",
            hint="Copy the data file again.",
        )


def _load_small_external_tensors(model: ir.Model) -> None:
    """Take tensors of up to 4 kB into memory: onnx_ir hands the small ones to ONNX, which knows no base folder."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor) and tensor.nbytes <= 4096:
                value.const_value = ir.Tensor(tensor.numpy().copy(), name=tensor.name)


def _check_graph(model: ir.Model, where: str) -> None:
    """Refuse a model that breaks the ONNX specification."""
    try:
        CheckerPass(full_check=False)(model)
    except Exception as error:
        if not any(remark in str(error.__cause__ or error) for remark in _TOLERATED):
            raise _invalid(where, error) from error


def _invalid(where: str, error: Exception) -> ModelError:
    """Return the error for a model that breaks the ONNX specification; the first line says how."""
    cause = error.__cause__ or error
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return ModelError(
        f"not a valid ONNX model: {lines[0] if lines else type(cause).__name__}",
        where=where,
        hint="onnx.checker.check_model says more.",
    )
