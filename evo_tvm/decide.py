"""Which algorithm and configuration each kernel gets, and why."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass

from tvm.s_tir import Schedule

from evo_tvm.kernels.lower_group import LoweredGroup
from evo_tvm.schedules import default, dense, depthwise, elementwise, global_pool, spatial_pack
from evo_tvm.schedules.common import largest_divisor
from evo_tvm.target import Target


@dataclass(frozen=True)
class Choice:
    """An algorithm, the values of its tunables as text, and the scheduled kernel."""

    algorithm: str
    config: str
    schedule: Schedule


def decide(lowered: LoweredGroup, target: Target) -> Choice:
    """The analytic rule: register tiles as large as the register file, preferring shapes that divide the output."""
    kind, func = lowered.group.anchor.kind, lowered.func
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
        dense_config = dense.Config(panel_tile=4 if rows > 1 else 4, row_tile=min(rows, target.vector_registers // 5))
        return _choice("dense", dense_config, dense.schedule(func, dense_config))
    if kind == "tir":
        return _choice("default", None, default.schedule(func, target.lanes_f32))
    return _choice("elementwise", None, elementwise.schedule(func, target.lanes_f32))


def _choice(algorithm: str, config: object, sch: Schedule) -> Choice:
    fields = dataclasses.asdict(config).items() if dataclasses.is_dataclass(config) else ()  # type: ignore[arg-type]
    return Choice(algorithm, ",".join(f"{k}={v}" for k, v in fields), sch)


def spatial_pack_config(lowered: LoweredGroup, target: Target) -> spatial_pack.Config:
    """The tile with the most multiply-adds for each vector loaded, as far as the registers reach.

    A tile of `o` channel blocks by `p` pixels takes o*p accumulators, o weights and one broadcast input. Each step of
    the reduction loads o weights and p inputs for o*p multiply-adds.
    """
    out = lowered.parameters[-1].view
    assert out is not None
    _, blocks, height, width, _ = out.shape
    groups = lowered.group.anchor.attrs["groups"]
    budget = target.vector_registers - 2
    best, best_score = spatial_pack.Config(ow_tile=largest_divisor(width, 14)), 0.0
    for o, i, j in itertools.product((1, 2, 4), range(1, 9), range(1, 29)):
        if (blocks // groups) % o or i > height or j > width or o * i * j + o > budget:
            continue
        used = blocks * height * width / (math.ceil(blocks / o) * o * math.ceil(height / i) * i * math.ceil(width / j) * j)
        whole = height % i == 0 and width % j == 0
        loads = o + i * j if o > 1 else 1 + i * j * 0.9
        score = used * (1.0 if whole else 0.6) * (o * i * j) / (o * i * j / 2 + 0.25 * loads + 2)
        if score > best_score:
            best, best_score = spatial_pack.Config(o, i, j, False), score
    return best


def depthwise_config(lowered: LoweredGroup, target: Target) -> depthwise.Config:
    """A strip as wide as divides the row, with registers left for the window's weights."""
    out = lowered.parameters[-1].view
    assert out is not None
    width = out.shape[3]
    strip = largest_divisor(width, target.vector_registers // 2)
    return depthwise.Config(1, strip if strip >= 4 or strip == width else min(width, 8))
