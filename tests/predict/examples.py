"""Measurements that follow a law, so that tests know what there is to learn."""

from __future__ import annotations

import random

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.decide import config_fields
from evo_tvm.predict.features import rule_cycles
from evo_tvm.target import Target, resolve
from evo_tvm.tune.folders import log_name
from evo_tvm.tune.log import Record
from evo_tvm.tune.revision import revision_of
from evo_tvm.workload import Workload

TARGET = resolve("cascadelake")
ALGORITHM = "spatial_pack"


def convolution(channels: int, size: int, out: int | None = None, kernel: int = 3, dtype: str = "float32") -> Workload:
    """A convolution that keeps its image's size."""
    pad, out = kernel // 2, out or channels
    attrs = (("dilation", (1, 1)), ("groups", (1,)), ("padding", (pad,) * 4), ("stride", (1, 1)))
    shapes = ((1, channels, size, size), (out, channels, kernel, kernel))
    return Workload("conv2d", shapes, (1, out, size, size), attrs, dtype, ("add", "relu"))


def law_ms(workload: Workload, config: object, target: Target, threads: int = 1) -> float:
    """Twice the analytic estimate with prefetching, half more without, and a microsecond."""
    cycles = rule_cycles(workload, ALGORITHM, config, target, threads)
    return cycles * (2.0 if getattr(config, "prefetch") else 3.0) / target.clock_hz * 1e3 + 1e-3  # noqa: B009


def records(
    target: Target = TARGET, factor: float = 1.0, threads: int = 1, seed: int = 0, each: int = 8
) -> list[Record]:
    """Of convolutions of many sizes, by the law."""
    rng = random.Random(seed)
    algorithm = ALGORITHMS["conv2d"][ALGORITHM]
    found = []
    for channels in (16, 24, 32, 48, 64, 96, 128):
        for size in (7, 10, 14, 20, 28):
            for kernel in (1, 3):
                workload = convolution(channels, size, 2 * channels, kernel)
                space = list(algorithm.space(workload, target, threads))
                for config in rng.sample(space, min(each, len(space))):
                    found.append(record(workload, config, factor * law_ms(workload, config, target, threads), target))
    return found


def record(
    workload: Workload, config: object, ms: float, target: Target = TARGET, algorithm: str = ALGORITHM
) -> Record:
    """One measurement."""
    revision = revision_of(target.isa, workload.operator, algorithm)
    return Record(workload, log_name(target), algorithm, config_fields(config), revision, (ms,))
