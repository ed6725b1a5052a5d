"""A lowered group => its kernel, scheduled by the algorithm and configuration that the plan gave it."""

from __future__ import annotations

from tvm.s_tir import Schedule
from tvm.tirx import ForKind

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.kernels.lower_group import LoweredGroup
from evo_tvm.schedules import channel_shuffle, default, elementwise, global_pool, normalize, traced
from evo_tvm.target import Target


def schedule_group(lowered: LoweredGroup, target: Target) -> Schedule:
    """The schedule of the group's function."""
    anchor = lowered.group.anchor
    if anchor.kind in ALGORITHMS:
        algorithm = ALGORITHMS[anchor.kind][anchor.attrs["algorithm"]]
        return algorithm.schedule(lowered.func, anchor.attrs["config"], target)
    if anchor.kind == "global_avg_pool2d":
        return global_pool.schedule(lowered.func)
    if anchor.kind == "channel_shuffle":
        return channel_shuffle.schedule(lowered.func)
    if anchor.kind in ("layer_norm", "softmax"):
        return normalize.schedule(lowered.func, target.lanes_f32)
    if "trace" in anchor.attrs:
        return traced.schedule(lowered.func, anchor.attrs["trace"])
    if anchor.kind == "tir":
        return default.schedule(lowered.func, target.lanes_f32)
    return elementwise.schedule(lowered.func, target.lanes_f32)


def algorithm_name(lowered: LoweredGroup) -> str:
    """The name under which profiles show how the group is computed."""
    anchor = lowered.group.anchor
    if anchor.kind in ALGORITHMS:
        return str(anchor.attrs["algorithm"])
    if "trace" in anchor.attrs:
        return "metaschedule"
    names = {"global_avg_pool2d": "global_pool", "layer_norm": "normalize", "softmax": "normalize", "tir": "default"}
    return names.get(anchor.kind, "elementwise")


def loops_text(sch: Schedule) -> str:
    """What a schedule without a configuration made of its loop nests: "parallel vectorized", one of them, or "serial";
    "partly" where it is true of some nests only. Small nests are not shared out to threads on purpose."""
    blocks = sch.get_child_blocks(sch.get_sblock("root"))
    nests = [{int(sch.get(loop).kind) for loop in sch.get_loops(block)} for block in blocks]
    words = []
    for kind, word in ((ForKind.PARALLEL, "parallel"), (ForKind.VECTORIZED, "vectorized")):
        having = sum(int(kind) in nest for nest in nests)
        if having:
            words.append(word if having == len(nests) else f"partly {word}")
    return " ".join(words) or "serial"
