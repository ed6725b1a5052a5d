"""A lowered group => its kernel, scheduled by the algorithm and configuration that the plan gave it."""

from __future__ import annotations

from tvm.s_tir import Schedule

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.kernels.lower_group import LoweredGroup
from evo_tvm.schedules import default, elementwise, global_pool
from evo_tvm.target import Target


def schedule_group(lowered: LoweredGroup, target: Target) -> Schedule:
    """The schedule of the group's function."""
    anchor = lowered.group.anchor
    if anchor.kind in ALGORITHMS:
        algorithm = ALGORITHMS[anchor.kind][anchor.attrs["algorithm"]]
        return algorithm.schedule(lowered.func, anchor.attrs["config"], target)
    if anchor.kind == "global_avg_pool2d":
        return global_pool.schedule(lowered.func)
    if anchor.kind == "tir":
        return default.schedule(lowered.func, target.lanes_f32)
    return elementwise.schedule(lowered.func, target.lanes_f32)


def algorithm_name(lowered: LoweredGroup) -> str:
    """The name under which profiles show how the group is computed."""
    anchor = lowered.group.anchor
    if anchor.kind in ALGORITHMS:
        return str(anchor.attrs["algorithm"])
    return {"tir": "default", "global_avg_pool2d": "global_pool"}.get(anchor.kind, "elementwise")
