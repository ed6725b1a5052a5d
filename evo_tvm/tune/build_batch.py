"""Candidates => one library with all of their kernels, and the bytes that they run on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evo_tvm.errors import CompileError
from evo_tvm.executor.cache import Cache
from evo_tvm.executor.codegen import build_object
from evo_tvm.executor.link import SUPPORT_SOURCES, link_library
from evo_tvm.executor.schedule_group import schedule_group
from evo_tvm.graph import Graph, Value
from evo_tvm.kernels.lower_group import LoweredGroup, lower_group
from evo_tvm.plan.storage import Placement, View, physical_shape, storage_bytes
from evo_tvm.target import Target
from evo_tvm.tune.one_kernel import KERNEL, Candidate, planned

#: The clock beside the kernels, and what it needs of a model's support code.
SOURCES = (SUPPORT_SOURCES[0], Path(__file__).with_name("time_kernel.c"))
EXPORTS = (
    *("evo_fixed_work", "evo_hold", "evo_pool_create", "evo_pool_destroy"),
    *("evo_time", "evo_touch", "evo_touch_all"),
)
#: Most parameters that `evo_time` can pass.
MOST_ARGUMENTS = 24
_ALIGN = 64
#: The file that names the candidate that is being built.
_AT = "at"


@dataclass
class Batch:
    """What `evo_tvm.tune.timer` reads; plain data, to be sent as JSON.

    library, data: files. kernels: each has `candidate`, its number among those that were asked for; `symbol`;
    `arguments`, pairs of (number of the buffer, offset in bytes); `warm`, numbers of the buffers that the kernels
    before it would have left in the caches; and `result`: buffer, offset, shape, strides (in elements), dtype and
    logical channels. buffers: pairs of (size in bytes, where in the data it begins, or -1: zeros).
    errors: by number, of candidates that could not be built.
    """

    library: str
    data: str
    kernels: list[dict[str, Any]] = field(default_factory=list)
    buffers: list[tuple[int, int]] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)


def build_batch(candidates: Mapping[int, Candidate], target: Target, cache: Cache, folder: Path) -> Batch:
    """Builds as the compiler does; one that does not fit its configuration has its error in the batch.

    candidates: by number. cache: of the support code, compiled. Raises CompileError: no linker.
    """
    made = _Maker(target, folder)
    for number, candidate in candidates.items():
        (folder / _AT).write_text(str(number))
        try:
            made.add(number, candidate)
        except Exception as error:  # a configuration that does not fit ends in any of TVM's errors
            made.batch.errors[number] = f"{type(error).__name__}: {_first_line(error)}"
    made.finish(cache)
    return made.batch


def being_built(folder: Path) -> int:
    """The candidate at which `build_batch` was, or died."""
    return int((folder / _AT).read_text())


class _Maker:
    def __init__(self, target: Target, folder: Path) -> None:
        self.target, self.folder = target, folder
        self.batch = Batch(str(folder / "kernels.so"), str(folder / "data"))
        self.objects: list[Path] = []
        self._data: list[np.ndarray] = []
        self._size = 0
        self._shared: dict[tuple[Any, ...], int] = {}

    def add(self, number: int, candidate: Candidate) -> None:
        graph = planned(candidate, self.target)
        group = next(group for group in graph.groups if group.name == KERNEL)
        lowered = lower_group(graph, Placement(graph), group, self.target.lanes_f32, self.target.signed_bytes)
        if len(lowered.parameters) > MOST_ARGUMENTS:
            raise CompileError(f"it has {len(lowered.parameters)} parameters, more than {MOST_ARGUMENTS}")
        symbol, path = f"evo_kernel_{number}", self.folder / f"{number}.o"
        func = candidate.function or schedule_group(lowered, self.target).mod["main"]
        build_object(func, symbol, self.target.tvm(), str(path))
        kernel = {"candidate": number, "symbol": symbol, **self._parameters(graph, lowered)}
        self.objects.append(path)
        self.batch.kernels.append(kernel)

    def finish(self, cache: Cache) -> None:
        """Writes the files."""
        with open(self.batch.data, "wb") as file:
            for array in self._data:
                file.write(array.data)
                file.write(bytes(-array.nbytes % _ALIGN))
        if self.objects:
            symbols = tuple(kernel["symbol"] for kernel in self.batch.kernels)
            exports = (*EXPORTS, *symbols)
            link_library(self.objects, SOURCES, Path(self.batch.library), self.target.triple, cache, exports)

    def _parameters(self, graph: Graph, lowered: LoweredGroup) -> dict[str, Any]:
        arguments: list[tuple[int, int]] = []
        read: list[int] = []
        written = [graph.values[name] for name in lowered.group.outputs]
        results = {value.name for value in written}
        for parameter in lowered.parameters:
            if parameter.view is None:
                data = parameter.data
                if data is None:
                    data = graph.values[parameter.name].data
                    assert data is not None
                    data = data if parameter.packing is None else parameter.packing.apply(data)
                arguments.append((self._constant(data), 0))
                continue
            value = graph.values[parameter.view.root]
            if parameter.name in results:
                arguments.append((self._result(len(results), value), parameter.view.offset_bytes))
            else:
                place = lowered.group.inputs.index(parameter.name)
                arguments.append((self._activation(place, value), parameter.view.offset_bytes))
                read.append(arguments[-1][0])
        view = lowered.parameters[-1].view
        assert view is not None
        made = [buffer for buffer, _ in arguments[len(arguments) - len(results) :]]
        return {
            "arguments": arguments,
            "warm": [*dict.fromkeys([*made, *read])],
            "result": _place_of(arguments[-1], view, written[-1]),
        }

    def _buffer(self, size: int, at: int) -> int:
        self.batch.buffers.append((size, at))
        return len(self.batch.buffers) - 1

    def _store(self, data: np.ndarray) -> int:
        flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        self._data.append(flat)
        at, self._size = self._size, self._size + flat.nbytes + -flat.nbytes % _ALIGN
        return self._buffer(flat.nbytes, at)

    def _constant(self, data: np.ndarray) -> int:
        """One for each kernel, though they be equal: that another has just read it would not be so in a model."""
        return self._store(data)

    def _activation(self, place: int, value: Value) -> int:
        key = ("read", place, value.shape, value.dtype, value.layout, value.zero)
        if key not in self._shared:
            self._shared[key] = self._store(stored(value, random_data(value, place)))
        return self._shared[key]

    def _result(self, count: int, value: Value) -> int:
        """Results of one size share their memory, as in a model's arena."""
        size = storage_bytes(value)
        key = ("written", size)
        if count > 1 or key not in self._shared:
            self._shared[key] = self._buffer(size, -1)
        return self._shared[key]


def random_data(value: Value, place: int) -> np.ndarray:
    """What operand number `place` holds: random, but always the same."""
    random = np.random.default_rng(place)
    if value.dtype in ("float32", "float64", "float16"):
        return random.standard_normal(value.shape, np.float32).astype(value.dtype)
    if value.dtype in ("uint8", "int8"):
        return random.integers(0, 256, value.shape).astype(value.dtype)
    return np.zeros(value.shape, value.dtype)  # it may be a place to read at


def stored(value: Value, data: np.ndarray) -> np.ndarray:
    """The logical elements as they lie in the value's layout, what pads a block and the border included."""
    shape, halo = physical_shape(value), value.layout.halo
    if len(shape) == 5:
        n, blocks, height, width, block = shape
        whole = np.zeros((n, blocks * block, height, width), data.dtype)
        whole[:, : data.shape[1]] = data
        data = whole.reshape(n, blocks, block, height, width).transpose(0, 1, 3, 4, 2)
    if not any(halo):
        return data
    top, left, bottom, right = halo
    edges = [(0, 0), (0, 0), (top, bottom), (left, right), *[(0, 0)] * (len(shape) - 4)]
    return np.pad(data, edges, constant_values=value.zero)


def _place_of(argument: tuple[int, int], view: View, value: Value) -> dict[str, Any]:
    buffer, offset = argument
    blocked = len(view.shape) == 5 and len(value.shape) == 4
    return {
        "buffer": buffer,
        "offset": offset,
        "shape": view.shape,
        "strides": view.strides,
        "dtype": value.dtype,
        "channels": value.shape[1] if blocked else 0,
    }


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else "no message")[:200]
