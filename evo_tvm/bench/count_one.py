"""How many instructions a candidate's kernel takes on an emulated CPU: no time, but exact, and the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evo_tvm.bench.emulated_kernel import EmulatedKernel
from evo_tvm.executor.schedule_group import schedule_group
from evo_tvm.kernels.lower_group import lower_group
from evo_tvm.plan.storage import Placement
from evo_tvm.target import Target
from evo_tvm.tune.one_kernel import KERNEL, Candidate, planned


def count_candidate(candidate: Candidate, target: Target, folder: Path) -> int:
    """Instructions of one call on one thread, on zeros. folder: for the kernel's program, and the plugin that counts.

    Raises EvoError: an emulator or a cross compiler is missing, or fails; or whatever scheduling and code generation
    raise where the configuration does not fit.
    """
    graph = planned(candidate, target)
    group = next(group for group in graph.groups if group.name == KERNEL)
    lowered = lower_group(graph, Placement(graph), group, target.lanes_f32, target.signed_bytes)
    kernel = EmulatedKernel(schedule_group(lowered, target).mod["main"], target, folder)
    operands = [
        np.zeros(shape, dtype) if parameter.data is None else parameter.data  # a table of places is no zeros
        for parameter, shape, dtype in zip(lowered.parameters, kernel.shapes, kernel.dtypes, strict=True)
    ]
    return kernel.count(*operands[:-1]).instructions
