"""A depthwise convolution and the 1x1 convolution behind it as one kernel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from evo_tvm.algorithms._base import Algorithm
from evo_tvm.algorithms._register_tile import image_cycles, operand_of, register_tile
from evo_tvm.kernels import elementwise
from evo_tvm.kernels.depthwise_pointwise import depthwise_pointwise
from evo_tvm.kernels.pack import Packing
from evo_tvm.schedules import depthwise_pointwise as schedules
from evo_tvm.schedules.common import largest_divisor
from evo_tvm.schedules.depthwise_pointwise import Config
from evo_tvm.target import Target
from evo_tvm.workload import Workload

if TYPE_CHECKING:
    from tvm import te, tirx
    from tvm.ir import Expr
    from tvm.s_tir import Schedule

    from evo_tvm.graph import Op
    from evo_tvm.kernels.parameters import Parameters


class DepthwisePointwise(Algorithm):
    """Band by band of rows; the operator's attribute "between" holds what lies between the two convolutions."""

    name = "depthwise_pointwise"
    operator = "depthwise_pointwise"
    config_type = Config

    def refuse(self, workload: Workload, target: Target) -> str | None:
        """It fits all."""
        return None

    def default(self, workload: Workload, target: Target, num_threads: int) -> Config:
        """Four rows or so, a divisor of all; the register tile of the 1x1 convolution within them."""
        _, oc, height, width = workload.output
        rows = largest_divisor(height, 4) if height % 4 == 0 or height % 2 == 0 else largest_divisor(height, 7)
        blocks = math.ceil(oc / target.lanes_f32)
        tile = register_tile(blocks, rows, width, target.vector_registers, operand=operand_of(target))
        return Config(rows, self._strip(width), *tile)

    def _strip(self, width: int) -> int:
        strip = largest_divisor(width, 16)
        return strip if strip >= 4 or strip == width else min(width, 8)

    def space(self, workload: Workload, target: Target, num_threads: int) -> Iterable[Config]:
        """Bands that divide the image, strips and the best register tiles."""
        _, oc, height, width = workload.output
        blocks = math.ceil(oc / target.lanes_f32)
        for rows in (r for r in (1, 2, 4, 7, 8, 14) if height % r == 0):
            registers, operand = target.vector_registers, operand_of(target)
            tiles = {register_tile(blocks, min(rows, m), width, registers, operand=operand) for m in (1, 2, 4)}
            for strip in sorted({self._strip(width), largest_divisor(width, 8), min(width, 7)}):
                for tile in sorted(tiles):
                    yield Config(rows, strip, *tile)

    def cycles(self, workload: Workload, config: Config, target: Target, num_threads: int) -> float:
        """The arithmetic of both."""
        (n, oc, height, width), lanes = workload.output, target.lanes_f32
        channels, taps = workload.shapes[1][0], math.prod(workload.shapes[1][2:])
        tile = (config.oc_tile, config.oh_tile, config.ow_tile)
        steps = image_cycles(math.ceil(oc / lanes), height, width, *tile, operand=operand_of(target))
        hidden = math.ceil(channels / lanes) * height * width * (taps + 2)
        return n * (channels * steps / 0.9 + hidden) / num_threads

    def stage(self, parameters: Parameters, op: Op, config: Config) -> te.Tensor:
        """See `evo_tvm.kernels.depthwise_pointwise`."""
        data, ob = parameters.data(op.args[0], op.attrs["border"]), parameters.out.layout.block
        ib = int(data.shape[4])
        (channels, _, kh, kw), (oc, _, _, _) = (parameters.values[a].shape for a in op.args[1:3])
        blocks, oc_blocks = -(-channels // ib), -(-oc // ob)
        first = parameters.constant(op.args[1], Packing("depthwise", (blocks, kh, kw, ib)))
        tiles = -(-oc_blocks // config.oc_tile)
        second = parameters.constant(op.args[2], Packing("pointwise", (tiles, blocks, ib, config.oc_tile, ob)))
        between = _between(parameters, op.attrs.get("between", ()), ib)
        return depthwise_pointwise(data, first, second, oc_blocks, op.attrs["stride"], op.attrs["dilation"], between)

    def schedule(self, func: tirx.PrimFunc, config: Config, target: Target) -> Schedule:
        """See `evo_tvm.schedules.depthwise_pointwise`."""
        return schedules.schedule(func, config)


def _between(parameters: Parameters, steps: Sequence[tuple[str, Any, int | None]], block: int) -> Any:
    """What `steps`, each (operator, attributes, input that is its second operand), make of a value at an index."""
    operands: dict[int, te.Tensor] = {}
    for _, _, index in steps:
        if index is not None and index not in operands:
            size = parameters.values[index].size
            blocked = Packing("blocked", (1, -(-size // block), 1, 1, block))
            operands[index] = parameters.constant(index, Packing("plain", (1,)) if size == 1 else blocked)

    def value_at(value: Expr, n: Expr, c: Expr, h: Expr, w: Expr, v: Expr) -> Expr:
        for kind, attrs, index in steps:
            terms = [value]
            if index is not None:
                tensor = operands[index]
                terms.append(tensor[0] if len(tensor.shape) == 1 else tensor[0, c, 0, 0, v])
            value = elementwise.apply(kind, terms, attrs)
        return value

    return value_at
