"""TVM's MetaSchedule on the convolutions of resnet18, beside our search, with the same time for each."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evo_tvm.bench import zoo
from evo_tvm.graph import Graph, Group, Op, Value
from evo_tvm.target import Target
from evo_tvm.tune.measure import Measurer, Result
from evo_tvm.tune.metaschedule import tune_function
from evo_tvm.tune.one_kernel import KERNEL, Candidate
from evo_tvm.tune.revision import FIXED
from evo_tvm.tune.search import search
from evo_tvm.tune_model import workloads_of
from evo_tvm.workload import Workload, workload_of

if TYPE_CHECKING:
    from tvm import tirx

#: Configurations at most, of either: the time is what ends them.
_TRIALS = 100_000


def against_metaschedule(
    target: Target, seconds: float, log: Path, measure: Callable[[], Measurer]
) -> list[dict[str, Any]]:
    """A row for each distinct convolution: the best time of each search in milliseconds, from nothing. Both have the
    same builder and the same clock."""
    rows = []
    for workload in (w for w in workloads_of(zoo.build("resnet18"), target) if w.operator == "conv2d"):
        path = log / "metaschedule.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        if workload.key not in known:
            with tempfile.TemporaryDirectory() as folder:
                found = search([workload], target, 1, Path(folder), _TRIALS, seconds, measurer=measure())
            ours = min(tuned.best_ms for tuned in found if tuned.best_ms is not None)
            theirs = _metaschedule(workload, target, seconds, measure())
            known[workload.key] = {"ours_ms": ours, "metaschedule_ms": theirs}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(known, indent=2))
        row = {"workload": workload.key, **known[workload.key]}
        theirs = row["metaschedule_ms"]
        row["metaschedule_over_ours"] = theirs / row["ours_ms"] if theirs is not None else None
        print(json.dumps(row), file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def _metaschedule(workload: Workload, target: Target, seconds: float, measurer: Measurer) -> float | None:
    """The best time in milliseconds that it finds within `seconds`; None where it finds none."""
    times: list[float] = []

    def report(trace: str, result: Result) -> None:
        times.extend(result.samples_ms)

    until = time.monotonic() + seconds
    with measurer:
        tune_function(_as_function(workload), target, 1, _TRIALS, measurer, report, until)
    return min(times, default=None)


def _as_function(workload: Workload) -> Candidate:
    """The convolution as a function of TIR, its weights and bias constants."""
    func = convolution(workload)
    shapes = [tuple(int(extent) for extent in param.ty.shape) for param in func.params]
    constant = {number for number, shape in enumerate(shapes) if number == 1 or shape[2:] == (1, 1)}
    random = np.random.default_rng(0)
    values = {
        f"v{i}": Value(
            f"v{i}", shape, "float32", random.standard_normal(shape, np.float32) * 0.01 if i in constant else None
        )
        for i, shape in enumerate(shapes)
    }
    *inputs, output = values
    group = Group(KERNEL, tuple(inputs), (output,), (Op("tir", tuple(range(len(inputs))), {"func": func}),))
    graph = Graph(values, (group,), tuple(name for name in inputs if values[name].data is None), (output,))
    return Candidate(workload_of(graph, group), FIXED, None, graph)


def convolution(workload: Workload) -> tirx.PrimFunc:
    """In NCHW, as TVM's frontends give it, with the bias, addition and activation behind it."""
    from tvm import te, topi

    image, kernel = (te.placeholder(shape, name=name) for shape, name in zip(workload.shapes, "xw", strict=True))
    attrs = workload.attributes
    top, left, bottom, right = attrs["padding"]
    out = topi.nn.conv2d_nchw(image, kernel, attrs["stride"], (top, left, bottom, right), attrs["dilation"])
    operands = [image, kernel]
    for number, kind in enumerate(workload.epilogue):
        if kind == "relu":
            out = topi.nn.relu(out)
            continue
        assert kind == "add"
        bias = "add" not in workload.epilogue[:number]
        shape = (1, workload.output[1], 1, 1) if bias else workload.output
        operands.append(te.placeholder(shape, name=f"operand{number}"))
        out = topi.add(out, operands[-1])
    return te.create_prim_func([*operands, out])
