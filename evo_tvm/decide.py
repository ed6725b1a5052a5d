"""Which algorithm and configuration each kernel gets, and why."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass

from tvm.s_tir import Schedule

from evo_tvm.kernels.lower_group import LoweredGroup
from evo_tvm.kernels.winograd import F4
from evo_tvm.plan.choose_algorithms import winograd_rows
from evo_tvm.schedules import default, dense, depthwise, elementwise, global_pool, spatial_pack, winograd
from evo_tvm.schedules.common import largest_divisor
from evo_tvm.target import Target


@dataclass(frozen=True)
class Choice:
    """An algorithm, the values of its tunables as text, and the scheduled kernel."""

    algorithm: str
    config: str
    schedule: Schedule


def decide(lowered: LoweredGroup, target: Target, num_threads: int) -> Choice:
    """The analytic rule: register tiles that take the fewest cycles, work for every thread."""
    kind, func = lowered.group.anchor.kind, lowered.func
    if kind == "conv2d" and lowered.group.anchor.attrs["algorithm"] == "winograd4":
        tiles = winograd_config(lowered, target, num_threads)
        return _choice("winograd4", tiles, winograd.schedule(func, F4.m, tiles))
    if kind == "conv2d":
        conv_config = spatial_pack_config(lowered, target)
        return _choice("spatial_pack", conv_config, spatial_pack.schedule(func, conv_config))
    if kind in ("depthwise_conv2d", "max_pool2d", "avg_pool2d"):
        strip = depthwise_config(lowered, target)
        stage = "depthwise" if kind == "depthwise_conv2d" else "pool"
        return _choice(stage, strip, depthwise.schedule(func, stage, strip))
    if kind == "global_avg_pool2d":
        return _choice("global_pool", None, global_pool.schedule(func))
    if kind == "dense":
        rows = lowered.parameters[-1].view.shape[0]  # type: ignore[union-attr]
        dense_config = dense.Config(min(rows, target.vector_registers // 5), 4 if rows > 1 else 2, 2)
        return _choice("dense", dense_config, dense.schedule(func, dense_config))
    if kind == "tir":
        return _choice("default", None, default.schedule(func, target.lanes_f32))
    return _choice("elementwise", None, elementwise.schedule(func, target.lanes_f32))


def _choice(algorithm: str, config: object, sch: Schedule) -> Choice:
    fields = dataclasses.asdict(config).items() if dataclasses.is_dataclass(config) else ()  # type: ignore[arg-type]
    return Choice(algorithm, ",".join(f"{k}={v}" for k, v in fields), sch)


def register_tile(blocks: int, height: int, width: int, registers: int, whole: bool = False) -> tuple[int, int, int]:
    """(channel blocks, rows, columns) of the register tile that takes the fewest cycles, edges included.

    A tile of `o` channel blocks by `p` pixels needs o*p accumulators, o weights and one broadcast pixel. `whole`: only
    tiles whose channel blocks divide `blocks`.
    """
    shapes = [
        (o, i, j)
        for o, i, j in itertools.product((2, 4, 1), (2, 1, 3, 4, 5, 6, 7, 8), range(1, registers))
        if o <= blocks and i <= height and j <= width and o * i * j + o + 2 <= registers + (o == 2)
        if not (whole and blocks % o)
    ]
    return min(shapes, key=lambda shape: round(_image_cycles(blocks, height, width, *shape), 3))


def _image_cycles(blocks: int, height: int, width: int, o: int, i: int, j: int) -> float:
    """Cycles of one step of the reduction over all tiles of an image, those at the edges included."""
    total = 0.0
    for channel_blocks, times_o in ((o, blocks // o), (blocks % o, 1)):
        for rows, times_i in ((i, height // i), (height % i, 1)):
            for columns, times_j in ((j, width // j), (width % j, 1)):
                total += times_o * times_i * times_j * _tile_cycles(channel_blocks, rows * columns)
    return total


def _tile_cycles(o: int, pixels: int) -> float:
    """o*p multiply-adds and o + p loads, two of each a cycle, and at least one multiply-add's latency (4 cycles)."""
    return max(o * pixels / 2, (o + pixels) / 2, 4.0) + 0.3 if o * pixels else 0.0


def spatial_pack_config(lowered: LoweredGroup, target: Target) -> spatial_pack.Config:
    """The best register tile; of input and weights, the larger is read once and the smaller kept in cache."""
    _, blocks, height, width, _ = lowered.parameters[-1].view.shape  # type: ignore[union-attr]
    data, weight = (lowered.inputs[a] for a in lowered.group.anchor.args)
    groups = lowered.group.anchor.attrs["groups"]
    tile = register_tile(blocks // groups, height, width, target.vector_registers, whole=groups > 1)
    return spatial_pack.Config(*tile, rows_outer=data.size > weight.size and height % tile[1] == 0)


def winograd_config(lowered: LoweredGroup, target: Target, num_threads: int) -> winograd.Config:
    """Rows of tiles by their memory traffic, then the best register tile of their product."""
    _, blocks, _, _, _ = lowered.parameters[-1].view.shape  # type: ignore[union-attr]
    oc, ic = lowered.inputs[lowered.group.anchor.args[1]].shape[:2]
    out_shape = lowered.outputs[0].shape
    rows, _ = winograd_rows(ic, oc, out_shape, target, num_threads)
    o, i, j = register_tile(blocks, rows, math.ceil(out_shape[3] / F4.m), target.vector_registers)
    return winograd.Config(rows, o, i, j)


def depthwise_config(lowered: LoweredGroup, target: Target) -> depthwise.Config:
    """A strip as wide as divides the row, with registers left for the window's weights."""
    out = lowered.parameters[-1].view
    assert out is not None
    width = out.shape[3]
    strip = largest_divisor(width, target.vector_registers // 2)
    return depthwise.Config(1, strip if strip >= 4 or strip == width else min(width, 8))
