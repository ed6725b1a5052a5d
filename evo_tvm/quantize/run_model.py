"""Running the model on calibration data, with values from inside it as outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from evo_tvm.errors import ModelError
from evo_tvm.frontend.clean_model import infer_shapes
from evo_tvm.frontend.fix_shapes import fix_shapes
from evo_tvm.quantize.calibration_data import CalibrationData, ModelInput
from evo_tvm.quantize.params import Array

#: Called with (what is done, done, total).
Progress: TypeAlias = Callable[[str, int, int], None]
#: More bytes of values than this are not taken out of one run: the model runs again for the others.
PASS_BYTES = 256 << 20


class Runner(Protocol):
    """Runs one model: from its inputs to its outputs, both by name."""

    def __call__(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """One run."""
        ...


class MakeRunner(Protocol):
    """Makes a runner of a model with static shapes. Handed in by whoever has an engine."""

    def __call__(self, model: onnx.ModelProto) -> Runner:
        """The runner of `model`."""
        ...


def model_inputs(model: ir.Model) -> tuple[ModelInput, ...]:
    """What the model takes."""
    found = []
    for value in model.graph.inputs:
        if value.dtype is None or value.shape is None:
            raise ModelError(f"input '{value.name}' has no type or shape")
        shape = tuple(size if isinstance(size, int) else None for size in value.shape)
        found.append(ModelInput(str(value.name), shape, str(value.dtype.numpy())))
    return tuple(found)


def run_on(
    model: ir.Model,
    names: Sequence[str],
    data: CalibrationData,
    make_runner: MakeRunner,
    progress: Progress | None = None,
    text: str = "calibrating",
    pass_bytes: int | None = PASS_BYTES,
) -> Iterator[dict[str, Array]]:
    """Run `model` on `data`, and yield the values `names` of each run.

    Where the values of one run are more than `pass_bytes`, there are several passes over the data, and each yields some
    of the names. Raises InputError: a bad sample.
    """
    given = {str(value.name) for value in model.graph.inputs}
    fixed = with_shapes(model, data)
    inner = [name for name in names if name not in given]
    passes = [inner] if pass_bytes is None else split_passes(fixed, inner, pass_bytes)
    for number, some in enumerate(passes or [[]]):
        shown = text if len(passes) < 2 else f"{text}, pass {number + 1} of {len(passes)}"
        if progress is not None:
            progress(shown, 0, len(data))
        runner = make_runner(with_outputs(fixed, some)) if some else None
        for done, feed in enumerate(data, 1):
            found = dict(runner(feed)) if runner is not None else {}
            if number == 0:
                found |= {name: feed[name] for name in names if name in given}
            yield found
            if progress is not None:
                progress(shown, done, len(data))


def with_shapes(model: ir.Model, data: CalibrationData) -> ir.Model:
    """A copy of `model` whose shapes are those of `data`."""
    copy = model.clone()
    fix_shapes(copy, data.shapes)
    infer_shapes(copy)
    return copy


def split_passes(model: ir.Model, names: Sequence[str], limit_bytes: int) -> list[list[str]]:
    """`names` in groups of which the values, in a `model` with static shapes, have up to `limit_bytes`."""
    sizes = {str(value.name): _size_bytes(value) for value in _values(model)}
    groups: list[list[str]] = []
    room = 0
    for name in names:
        if not groups or sizes[name] > room:
            groups.append([])
            room = limit_bytes
        groups[-1].append(name)
        room -= sizes[name]
    return groups


def with_outputs(model: ir.Model, names: Sequence[str]) -> onnx.ModelProto:
    """A copy of `model` whose outputs are the values `names`; what they do not need is left out."""
    copy = model.clone()
    values = {str(value.name): value for value in _values(copy)}
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(values[name] for name in names)
    common.RemoveUnusedNodesPass()(copy)
    return ir.to_proto(copy)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs


def _size_bytes(value: ir.Value) -> int:
    if value.shape is None or not value.shape.is_static() or value.dtype is None:
        return 0
    return math.ceil(math.prod(int(str(size)) for size in value.shape) * value.dtype.itemsize)
