"""Direct float32 convolutions of a model on RISC-V with V: vector multiply-adds against the work that is to be done."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evo_tvm import pipeline
from evo_tvm.bench import zoo
from evo_tvm.bench.emulated_kernel import EmulatedKernel
from evo_tvm.decide import config_text
from evo_tvm.executor.schedule_group import schedule_group
from evo_tvm.graph import Group
from evo_tvm.kernels.lower_group import lower_group
from evo_tvm.plan.storage import Placement
from evo_tvm.target import Target
from evo_tvm.workload import workload_of

#: Registers of a group that one instruction works on in these kernels.
LMUL = 1


@dataclass(frozen=True)
class Layer:
    """A direct convolution of which a model has `times`. multiply_adds: of one, padding included, as it is usual.

    vector_fma: instructions; lanes: theirs in all; instructions: all that the kernel executes.
    """

    name: str
    workload: str
    schedule: str
    times: int
    multiply_adds: int
    vector_fma: int
    lanes: int
    instructions: int

    @property
    def lanes_per_multiply_add(self) -> float:
        """1 where no lane is idle."""
        return self.lanes / self.multiply_adds

    @property
    def others_per_vector_fma(self) -> float:
        """Instructions of the whole kernel that are no vector multiply-adds, for each that is."""
        return (self.instructions - self.vector_fma) / self.vector_fma

    def as_json(self) -> dict[str, str | int | float]:
        """A line of `scripts/count_instructions --kernels`."""
        return {
            "layer": self.name,
            "workload": self.workload,
            "schedule": self.schedule,
            "times": self.times,
            "multiply_adds": self.multiply_adds,
            "lanes": self.lanes,
            "lanes_per_multiply_add": self.lanes_per_multiply_add,
            "vector_fma": self.vector_fma,
            "others_per_vector_fma": self.others_per_vector_fma,
            "lmul": LMUL,
        }


def count_layers(model: str, target: Target) -> Iterator[Layer]:
    """The distinct convolutions of `evo_tvm.bench.zoo`'s model, each run once on random numbers under an emulator.

    Raises EvoError: see `EmulatedKernel`.
    """
    imported = pipeline.clean(zoo.build(model))
    graph = pipeline.plan(imported, target, 1, {"*": "spatial_pack"}).graph
    placement = Placement(graph)
    alike: dict[str, list[Group]] = {}
    for group in graph.groups:
        if group.anchor.attrs.get("algorithm") == "spatial_pack":
            workload = workload_of(graph, group)
            alike.setdefault(f"{workload.key} {' '.join(workload.epilogue)}".strip(), []).append(group)
    for key, groups in alike.items():
        group, (n, _, height, width) = groups[0], graph.values[groups[0].output].shape
        lowered = lower_group(graph, placement, group, target.lanes_f32, target.signed_bytes)
        with tempfile.TemporaryDirectory(prefix="evo_tvm_count_") as folder:
            kernel = EmulatedKernel(schedule_group(lowered, target).mod["main"], target, Path(folder))
            rng = np.random.default_rng(0)
            inputs = [rng.standard_normal(shape).astype(dtype) for shape, dtype in _operands(kernel)]
            counted = kernel.count(*inputs)
        weight = graph.values[group.inputs[group.anchor.args[1]]].shape
        yield Layer(
            name=group.name,
            workload=key,
            schedule=config_text(group.anchor.attrs["config"]),
            times=len(groups),
            multiply_adds=n * height * width * math.prod(weight),
            vector_fma=counted.vector_fma,
            lanes=counted.lanes,
            instructions=counted.instructions,
        )


def _operands(kernel: EmulatedKernel) -> Iterator[tuple[tuple[int, ...], np.dtype[np.generic]]]:
    yield from zip(kernel.shapes[:-1], kernel.dtypes[:-1], strict=True)
