"""Workloads and records for the tests of tuning."""

from __future__ import annotations

from typing import Any

from evo_tvm.target import Target, resolve
from evo_tvm.tune.folders import log_name
from evo_tvm.tune.log import Record
from evo_tvm.tune.revision import revision_of
from evo_tvm.workload import Workload

CONV = Workload.from_key(
    "conv2d 1x32x9x7 32x32x3x3 dilation=1,1 groups=1 padding=1,1,1,1 stride=1,1 float32",
    (1, 32, 9, 7),
    ("add", "add", "relu"),
)
DENSE = Workload.from_key("dense 7x64 64x160 float32", (7, 160), ("add",))
POOL = Workload.from_key(
    "max_pool2d 1x32x9x9 count_include_pad=0 dilation=1,1 padding=0,0,0,0 pool_size=3,3 stride=2,2 float32",
    (1, 32, 4, 4),
)
MATMUL = Workload.from_key(
    "matmul 2x7x24 2x24x33 left_shape=2,7,24 left_strides=168,24,1 right_shape=2,24,33 right_strides=792,33,1 float32",
    (2, 7, 33),
)
TARGET: Target = resolve("x86-64-v3")


def record(ms: float | tuple[float, ...] = 1.0, algorithm: str = "spatial_pack", **fields: Any) -> Record:
    """A measurement of CONV that is not stale; no time where `ms` is empty."""
    samples = ms if isinstance(ms, tuple) else (ms,)
    defaults = {"workload": CONV, "target": log_name(TARGET), "revision": revision_of(TARGET.isa, "conv2d", algorithm)}
    given: dict[str, Any] = {**defaults, "config": {"oc_tile": 1}, **fields}
    return Record(algorithm=algorithm, samples_ms=samples, **given)
