"""Refuse values that kernels cannot compute with: sequences, strings, complex numbers, numbers of 4 bits and less."""

from __future__ import annotations

import onnx_ir as ir

from evo_tvm.errors import ModelError
from evo_tvm.frontend.clean_model import STORAGE_TYPES

_NO_NUMBERS = frozenset({ir.DataType.STRING})
_WITHOUT_KERNELS = STORAGE_TYPES | {ir.DataType.COMPLEX64, ir.DataType.COMPLEX128}
_MAX_SHOWN = 5


def check_types(model: ir.Model) -> None:
    """Raise ModelError where `model`, rewritten, has values of a type that cannot be compiled; a few are named."""
    for role, values in (("input", model.graph.inputs), ("output", model.graph.outputs)):
        for value in values:
            if value.type is not None and not isinstance(value.type, ir.TensorType):
                raise ModelError(f"{role} '{value.name}' is not a tensor; only tensors can be compiled")
            if value.dtype in _NO_NUMBERS:
                raise ModelError(f"{role} '{value.name}' holds strings; only numbers and booleans can be compiled")
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [output for node in ir.traversal.RecursiveGraphIterator(model.graph) for output in node.outputs]
    refused = [value for value in values if value.dtype in _NO_NUMBERS | _WITHOUT_KERNELS]
    if refused:
        shown = ", ".join(
            f"'{value.name}' ({value.dtype.name.lower()})" for value in refused[:_MAX_SHOWN] if value.dtype
        )
        more = f" and {len(refused) - _MAX_SHOWN} more" if len(refused) > _MAX_SHOWN else ""
        raise ModelError(
            f"element type without kernels: {shown}{more}",
            hint="Export the model with float32, float16, bfloat16, bool, or integers of 8 bits or more.",
        )
