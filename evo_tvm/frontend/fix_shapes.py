"""Give every free dimension of a model's inputs a number: compiled models have static shapes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from evo_tvm.errors import ModelError, UsageError

_EXAMPLE_SIZES = {4: (1, 3, 224, 224), 3: (1, 128, 64), 2: (1, 128), 1: (1,)}


def parse_input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Return the name and shape in `text`, an option like "image:1x3x224x224"; the name itself may hold colons.

    Raises
    ------
    UsageError: `text` is not NAME:SHAPE.
    """
    name, colon, sizes = text.rpartition(":")
    parts = sizes.lower().replace(",", "x").split("x")
    if not colon or not name or not all(part.strip().isdecimal() for part in parts):
        raise UsageError(
            f"'{text}' is not NAME:SHAPE", where="--input", hint="Write it like --input image:1x3x224x224."
        )
    return name, tuple(int(part) for part in parts)


def fix_shapes(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> None:
    """Put `shapes` (input name -> sizes) into `model`, in place; named dimensions are fixed wherever they occur.

    Raises
    ------
    UsageError: a name that is no input, a rank or size that contradicts the model or another input.
    ModelError: inputs that still have free dimensions, all of them named.
    """
    inputs = {str(value.name): value for value in model.graph.inputs}
    sizes_of_names: dict[str, int] = {}
    for name, shape in shapes.items():
        if name not in inputs:
            raise _unknown_input(name, list(inputs))
        _fix_input(inputs[name], tuple(int(size) for size in shape), sizes_of_names)
    _fill_names(model, sizes_of_names)
    free = [value for value in inputs.values() if not _is_static(value)]
    if free:
        raise _free_dimensions(free)


def _fix_input(value: ir.Value, shape: tuple[int, ...], sizes_of_names: dict[str, int]) -> None:
    """Check `shape` against what the model declares, note what its named dimensions become, and set it."""
    if any(size < 1 for size in shape):
        raise UsageError("sizes must be at least 1", where=f"input '{value.name}'", got=_text(shape))
    if value.shape is not None:
        if len(value.shape) != len(shape):
            raise UsageError(
                f"input '{value.name}' has {len(value.shape)} dimensions",
                expected=_dims(value),
                got=_text(shape),
            )
        for axis, (declared, size) in enumerate(zip(value.shape, shape, strict=True)):
            if isinstance(declared, int):
                if declared != size:
                    raise UsageError(
                        f"dimension {axis} of input '{value.name}' is fixed in the model",
                        expected=declared,
                        got=size,
                        hint=f"The model declares {_dims(value)}.",
                    )
            elif declared.value is not None and sizes_of_names.setdefault(declared.value, size) != size:
                raise UsageError(
                    f"dimension '{declared.value}' is given two sizes",
                    where=f"input '{value.name}'",
                    expected=sizes_of_names[declared.value],
                    got=size,
                )
    value.shape = ir.Shape(shape)


def _fill_names(model: ir.Model, sizes_of_names: Mapping[str, int]) -> None:
    """Replace named dimensions everywhere; forget shapes that are still free, for shape inference finds them again."""
    for value in model.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([_fill(dim, sizes_of_names) for dim in value.shape])
    for graph in model.graphs():
        for node in graph:
            for output in node.outputs:
                if not _is_static(output):
                    output.shape = None


def _fill(dim: int | ir.SymbolicDim, sizes_of_names: Mapping[str, int]) -> int | ir.SymbolicDim:
    """Return the size of `dim` where it is known, else `dim`."""
    return sizes_of_names.get(dim.value, dim) if isinstance(dim, ir.SymbolicDim) and dim.value is not None else dim


def _is_static(value: ir.Value) -> bool:
    """Whether the type of `value` is a tensor of known sizes (other types have no shape to fix)."""
    if value.type is not None and not isinstance(value.type, ir.TensorType):
        return True
    return value.shape is not None and value.shape.is_static()


def _unknown_input(name: str, names: list[str]) -> UsageError:
    """Return the error for a name that is no input."""
    close = difflib.get_close_matches(name, names, n=3)
    hint = (
        f"Did you mean {' or '.join(map(repr, close))}?" if close else f"The inputs are {', '.join(names) or 'none'}."
    )
    return UsageError(f"the model has no input '{name}'", where="--input", hint=hint)


def _free_dimensions(values: list[ir.Value]) -> ModelError:
    """Return the error that names each input with free dimensions and shows the options to pass."""
    names = ", ".join(f"'{value.name}' is {_dims(value)}" for value in values)
    options = " ".join(f"--input {value.name}:{_text(_example(value))}" for value in values)
    return ModelError(
        f"input{'s' if len(values) > 1 else ''} with free dimensions: {names}",
        hint=f"Say which sizes to compile for, for example: {options}",
    )


def _example(value: ir.Value) -> tuple[int, ...]:
    """Return a likely shape for `value`, keeping the sizes that the model declares."""
    if value.shape is None:
        return _EXAMPLE_SIZES[4]
    likely = _EXAMPLE_SIZES.get(len(value.shape), (1,) * len(value.shape))
    return tuple(dim if isinstance(dim, int) else size for dim, size in zip(value.shape, likely, strict=True))


def _dims(value: ir.Value) -> str:
    """Return the declared shape as text: "Nx3x?x?"."""
    if value.shape is None:
        return "of unknown rank"
    return "x".join(str(dim) if isinstance(dim, int) else str(dim.value or "?") for dim in value.shape)


def _text(shape: Sequence[int]) -> str:
    """Return `shape` as the option spells it: "1x3x224x224"."""
    return "x".join(map(str, shape))
