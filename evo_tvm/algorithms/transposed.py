"""Transposed convolution, one ordinary convolution for each phase of its stride."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from evo_tvm.algorithms._base import Algorithm, Border
from evo_tvm.algorithms._register_tile import fits, image_cycles, operand_of, register_tile
from evo_tvm.kernels.pack import Packing
from evo_tvm.kernels.transposed import border, transposed_conv2d
from evo_tvm.schedules import transposed
from evo_tvm.schedules.transposed import Config
from evo_tvm.target import Target
from evo_tvm.workload import Workload, blocks_of

if TYPE_CHECKING:
    from tvm import te, tirx
    from tvm.s_tir import Schedule

    from evo_tvm.graph import Op
    from evo_tvm.kernels.parameters import Parameters


class Transposed(Algorithm):
    """Shi et al., "Is the deconvolution layer the same as a convolutional layer?" (2016)."""

    name = "transposed"
    operator = "conv2d_transpose"
    config_type = Config

    def refuse(self, workload: Workload, target: Target) -> str | None:
        """One group; no dilation where it has a stride."""
        attrs = workload.attributes
        if attrs["groups"] != (1,):
            return "it is grouped"
        if any(s > 1 and d > 1 for s, d in zip(attrs["stride"], attrs["dilation"], strict=True)):
            return "it has a stride and a dilation in one direction"
        return None

    def default(self, workload: Workload, target: Target, num_threads: int) -> Config:
        """The register tile that covers the image of a phase in the fewest cycles."""
        return Config(*register_tile(*_phase(workload, target), target.vector_registers, operand=operand_of(target)))

    def space(self, workload: Workload, target: Target, num_threads: int) -> Iterable[Config]:
        """The register tiles within a quarter of the best."""
        phase = blocks, height, width = _phase(workload, target)
        operand = operand_of(target)
        tiles = [
            (o, i, j)
            for o, i, j in itertools.product((1, 2, 4), (1, 2, 3, 4, 7), range(1, min(width, 28) + 1))
            if o <= blocks and i <= height and fits(o, i * j, target.vector_registers, operand=operand)
        ]
        best = min(image_cycles(*phase, *tile, operand=operand) for tile in tiles)
        for tile in tiles:
            if image_cycles(*phase, *tile, operand=operand) <= 1.25 * best:
                yield Config(*tile)

    def border(self, workload: Workload, config: Any) -> Border:
        """What the kernel reaches around the image before its result is cut."""
        attrs = workload.attributes
        return border(
            _pair(workload.shapes[0][2:]),
            _pair(workload.shapes[1][2:]),
            _pair(attrs["stride"]),
            _pair(attrs["dilation"]),
            _pair(attrs["padding"][:2]),
            _pair(workload.output[2:]),
        )

    def cycles(self, workload: Workload, config: Config, target: Target, num_threads: int) -> float:
        """Arithmetic over all tiles of all phases, and the weights' way from memory."""
        ic, oc, kh, kw = workload.shapes[1]
        tile = (config.oc_tile, config.oh_tile, config.ow_tile)
        steps = workload.output[0] * ic * kh * kw  # the phases have these taps in common
        cycles = image_cycles(*_phase(workload, target), *tile, operand=operand_of(target))
        arithmetic = steps * cycles / 0.9
        return arithmetic / num_threads + ic * oc * kh * kw * 4 / target.memory_bytes_per_cycle

    def stage(self, parameters: Parameters, op: Op, config: Config) -> te.Tensor:
        """See `evo_tvm.kernels.transposed`."""
        data, attrs, ob = parameters.data(op.args[0], op.attrs["border"]), op.attrs, parameters.out.layout.block
        _, oc, kh, kw = parameters.values[op.args[1]].shape
        ic_blocks, ib, oc_blocks = int(data.shape[1]), int(data.shape[4]), -(-oc // ob)
        stride, cut = attrs["stride"], attrs["padding"][:2]
        taps = (math.ceil(kh / stride[0]), math.ceil(kw / stride[1]))
        shape = (*stride, -(-oc_blocks // config.oc_tile), ic_blocks, *taps, ib, config.oc_tile, ob)
        weight = parameters.constant(op.args[1], Packing("transposed", shape, cut))
        return transposed_conv2d(data, weight, oc_blocks, (kh, kw), attrs["dilation"], cut, parameters.image)

    def schedule(self, func: tirx.PrimFunc, config: Config, target: Target) -> Schedule:
        """See `evo_tvm.schedules.transposed`."""
        rows, columns, *_ = (int(extent) for extent in func.params[1].ty.shape)  # the weights' phases
        return transposed.schedule(func, (rows, columns), config)


def _phase(workload: Workload, target: Target) -> tuple[int, int, int]:
    """(blocks of output channels, rows, columns) of the largest phase."""
    _, oc, height, width = workload.output
    down, across = workload.attributes["stride"]
    _, block = blocks_of(workload, target.lanes_f32)
    return math.ceil(oc / block), math.ceil(height / down), math.ceil(width / across)


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    first, second = values
    return first, second
