"""`evo_tvm.tune`: measures the kernels of a model on this machine, for later compilations to choose from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.errors import UsageError
from evo_tvm.frontend import import_onnx
from evo_tvm.pipeline import CLEAN_UP, kernel_graph
from evo_tvm.plan.fuse_depthwise_pointwise import fuse_depthwise_pointwise
from evo_tvm.target import Target, resolve
from evo_tvm.tune.folders import VARIABLE, user_folder
from evo_tvm.tune.log import Log
from evo_tvm.tune.search import Progress, Tuned, search
from evo_tvm.workload import Workload, workload_of

if TYPE_CHECKING:
    import onnx


def tune(
    model: str | os.PathLike[str] | onnx.ModelProto,
    target: str | Target = "host",
    num_threads: int = 1,
    trials: int = 64,
    seconds: float | None = None,
    algorithms: Sequence[str] = (),
    log: str | os.PathLike[str] | None = None,
    seed: int = 0,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    progress: Progress | None = None,
) -> tuple[Tuned, ...]:
    """Measures up to `trials` configurations of each distinct kernel of the model and each algorithm that fits it.

    Each measurement is written at once; a run that is interrupted goes on where it was. `evo_tvm.compile` then takes
    the fastest. model, input_shapes: as for `compile`. target: this machine, under one of its names. num_threads:
    threads that the kernels run on; what is measured counts for this number alone. seconds: stop about then, all
    kernels having had their share. algorithms: measure these alone. log: the folder to write, in place of the user's
    own. seed: of the random choice. progress: called with (what was found, done, total).

    Raises ModelError, UnsupportedOperatorError, TargetError; UsageError: a number that is too small, no such algorithm,
    a log that cannot be written, a target that is not this machine.
    """
    for name, value in (("num_threads", num_threads), ("trials", trials)):
        if value < 1:
            raise UsageError(f"{name} is too small", expected="at least 1", got=value)
    folder = Path(log) if log is not None else user_folder()
    if folder is None:
        raise UsageError(
            f"there is no folder for tuning logs: {VARIABLE} is off, or there is no home folder",
            hint="Name one with --log.",
        )
    resolved = target if isinstance(target, Target) else resolve(target)
    workloads = workloads_of(model, resolved, input_shapes)
    return search(workloads, resolved, num_threads, folder, trials, seconds, algorithms, seed, progress)


def workloads_of(
    model: str | os.PathLike[str] | onnx.ModelProto,
    target: Target,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> tuple[Workload, ...]:
    """The workloads of the model's kernels, in order, each once. Raises as `compile` does."""
    module = import_onnx(model, input_shapes).module
    for step in CLEAN_UP:
        module = step(module)
    apart, _ = kernel_graph(module, target)
    joined = fuse_depthwise_pointwise(apart, target, 1, Log())  # measured both ways, they can be compared
    groups = [(graph, group) for graph in (apart, joined) for group in graph.groups if group.anchor.kind in ALGORITHMS]
    return tuple(dict.fromkeys(workload_of(graph, group) for graph, group in groups))
