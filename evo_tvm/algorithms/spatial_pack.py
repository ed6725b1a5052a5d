"""Direct convolution in a blocked layout: the algorithm that fits every convolution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from evo_tvm.algorithms._base import Algorithm
from evo_tvm.algorithms._register_tile import dot_cost, fits, image_cycles, operand_of, register_tile
from evo_tvm.kernels.conv2d import CHUNK, conv2d
from evo_tvm.kernels.pack import Packing
from evo_tvm.schedules import spatial_pack
from evo_tvm.schedules.spatial_pack import Config
from evo_tvm.target import Target
from evo_tvm.workload import Workload, blocks_of

if TYPE_CHECKING:
    from tvm import te, tirx
    from tvm.s_tir import Schedule

    from evo_tvm.graph import Op
    from evo_tvm.kernels.parameters import Parameters

#: Terms of a panel of weights in the first cache: enough that putting sums aside costs 1 or 2 %.
_PANEL_TERMS = 144


class SpatialPack(Algorithm):
    """Georganas et al., "Anatomy of High-Performance Deep Learning Convolutions on SIMD Architectures" (SC 2018)."""

    name = "spatial_pack"
    operator = "conv2d"
    config_type = Config
    dtypes = frozenset({"float32", "uint8"})

    def refuse(self, workload: Workload, target: Target) -> str | None:
        """It computes grouped convolutions only where blocks of channels lie within one group."""
        (oc, ic, _, _), (groups,) = workload.shapes[1], workload.attributes["groups"]
        if groups > 1 and (oc // groups % target.lanes_f32 or ic % target.lanes_f32):
            return f"its groups are not whole blocks of {target.lanes_f32} channels"
        return None

    def default(self, workload: Workload, target: Target, num_threads: int) -> Config:
        """The best register tile; panels that fit the first cache; of input and weights, the smaller kept in cache."""
        s = _Sizes(workload, target)
        chunk = s.chunk(_PANEL_TERMS) if s.ic_blocks * s.terms > CHUNK else 0
        whole = s.groups > 1 or (num_threads > 1 and chunk > 0)  # peeled tiles would not be shared out
        blocks, registers = s.oc_blocks // s.groups, target.vector_registers
        tile = register_tile(blocks, s.height, s.width, registers, whole, s.vectors, operand_of(target, workload.dtype))
        large_input = s.data_bytes > target.l2_bytes * 45 // 100
        by_rows = s.data_bytes > min(s.weight_bytes, target.l2_bytes) and s.height % tile[1] == 0
        rows = tile[1] if by_rows else 0
        if num_threads > 1 and rows and s.n * s.height // rows < 2 * num_threads:
            rows = 0
        if s.n > 1:  # image by image, as if it were alone
            rows = rows or s.height
        sums_bytes = s.oc_blocks * s.vectors * target.lanes_f32 * (rows or s.height) * s.width * 4
        shared_out = num_threads == 1 or s.n >= num_threads
        depth_outer = bool(chunk and large_input and sums_bytes <= target.l2_bytes // 2 and shared_out)
        if by_rows and chunk and s.chunk(2 * CHUNK) == 0:
            chunk, depth_outer = 0, False  # a row's input stays in cache: one sum over the whole depth
        fetch = target.isa == "x86" and s.weight_bytes > target.l2_bytes // (2 if by_rows else 8)
        return Config(*tile, rows, chunk, depth_outer, fetch, linear_prefetch=fetch)

    def space(self, workload: Workload, target: Target, num_threads: int) -> Iterable[Config]:
        """All sensible register tiles, panels and orders of the loops."""
        s = _Sizes(workload, target)
        blocks, operand = s.oc_blocks // s.groups, operand_of(target, workload.dtype)
        tiles = [
            (o, i, j)
            for o, i, j in itertools.product((1, 2, 4), (1, 2, 3, 4, 7), range(1, min(s.width, 28) + 1))
            if o <= blocks and i <= s.height and fits(o, i * j, target.vector_registers, s.vectors, operand)
            if o * i * j >= min(8, blocks * s.height * s.width) and not (s.groups > 1 and blocks % o)
        ]
        cycles = {tile: image_cycles(blocks, s.height, s.width, *tile, s.vectors, operand) for tile in tiles}
        tiles = [tile for tile in tiles if cycles[tile] <= 1.25 * min(cycles.values())]
        whole = s.ic_blocks * s.terms <= 2 * CHUNK
        chunks = {s.chunk(terms) for terms in (72, 144, 288, CHUNK)} | ({0} if whole else set())
        for tile in tiles:
            groups_of_rows = {
                0,
                *(r for r in (tile[1], 2 * tile[1], 4 * tile[1]) if r < s.height and s.height % r == 0),
            }
            for chunk, rows in itertools.product(sorted(chunks), sorted(groups_of_rows)):
                for depth_outer, fetch in itertools.product((False, True), (False, True)):
                    if (depth_outer and not chunk) or (fetch and chunk and s.n > 1 and not rows):
                        continue
                    if chunk == 0 and not whole:
                        continue
                    yield Config(*tile, rows, chunk, depth_outer, fetch, linear_prefetch=fetch)

    def cycles(self, workload: Workload, config: Config, target: Target, num_threads: int) -> float:
        """Arithmetic over all tiles, and what of the weights' way from memory is not hidden behind it."""
        s = _Sizes(workload, target)
        tile = (config.oc_tile, config.oh_tile, config.ow_tile)
        steps = image_cycles(s.oc_blocks, s.height, s.width, *tile, s.vectors, operand_of(target, workload.dtype))
        arithmetic = s.n * s.ic_blocks * s.terms * steps / 0.95 * (dot_cost(target) if workload.dtype == "uint8" else 1)
        weights = s.weight_bytes / target.memory_bytes_per_cycle
        return arithmetic / num_threads + (0.2 * weights if config.prefetch else weights)

    def stage(self, parameters: Parameters, op: Op, config: Config) -> te.Tensor:
        """See `evo_tvm.kernels.conv2d`."""
        data = parameters.data(op.args[0], op.attrs["border"])
        ib, ob = int(data.shape[4]), parameters.out.layout.block
        oc, ic, kh, kw = parameters.values[op.args[1]].shape
        step, four = reduction_step(ic, ib), dot_terms(parameters.values[op.args[0]].dtype)
        ic_blocks, oc_blocks = -(-ic // step), -(-oc // ob)
        chunk = config.depth_chunk or ic_blocks
        outer = (-(-oc_blocks // config.oc_tile), ic_blocks // chunk)
        kind = "conv2d_by_depth" if config.depth_outer else "conv2d"
        shape = (
            *(outer[::-1] if config.depth_outer else outer),
            chunk,
            kh,
            kw,
            step // math.prod(four),
            config.oc_tile,
            ob,
            *four,
        )
        weight = parameters.constant(op.args[1], Packing(kind, shape))
        attrs = op.attrs
        shifts = attrs["stride"], attrs["dilation"]
        return conv2d(data, weight, oc_blocks, *shifts, attrs["groups"], config.depth_outer, parameters.centre(op))

    def schedule(self, func: tirx.PrimFunc, config: Config, target: Target) -> Schedule:
        """See `evo_tvm.schedules.spatial_pack`."""
        return spatial_pack.schedule(func, config)


def reduction_step(channels: int, block: int) -> int:
    """Input channels in a step of the reduction: a divisor of their block, at least 4, that leaves fewest idle."""
    steps = [block >> i for i in range(block.bit_length()) if block % (1 << i) == 0 and block >> i >= min(4, block)]
    return min(steps, key=lambda step: (math.ceil(channels / step) * step, -step))


def dot_terms(dtype: str) -> tuple[int, ...]:
    """The innermost extent of the weights: bytes are multiplied and added up in fours."""
    return (4,) if dtype == "uint8" else ()


class _Sizes:
    """A workload in bytes and blocks: those of the input are steps of the reduction. A term is 4 bytes of weights."""

    def __init__(self, workload: Workload, target: Target) -> None:
        lanes = target.lanes_f32
        (_, channels, rows, columns), (oc, ic, kh, kw) = workload.shapes
        (self.groups,) = workload.attributes["groups"]
        block, out_block = blocks_of(workload, lanes)
        self.n, _, self.height, self.width = workload.output
        step = reduction_step(ic, block)
        self.oc_blocks, self.ic_blocks = math.ceil(oc / out_block), math.ceil(ic / step)
        self.vectors = math.ceil(out_block / lanes)
        self.terms = kh * kw * step // math.prod(dot_terms(workload.dtype))
        self.weight_bytes = self.oc_blocks * out_block * self.ic_blocks * self.terms * 4
        self.data_bytes = channels * rows * columns * np.dtype(workload.dtype).itemsize  # of one image

    def chunk(self, terms: int) -> int:
        """Blocks of input channels that add up to at most `terms`, a divisor of all; 0 where that is all."""
        limit = max(1, terms // self.terms)
        if limit >= self.ic_blocks:
            return 0
        return next(c for c in range(limit, 0, -1) if self.ic_blocks % c == 0)
