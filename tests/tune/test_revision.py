"""Kernels that change make measurements stale: each is held to a hash of what it was when its revision began.

EVO_TVM_RENEW=1 writes tests/data/kernel_revisions.json anew, once revisions have been raised.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tvm_ffi

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.decide import config_fields
from evo_tvm.executor.codegen import lower
from evo_tvm.executor.schedule_group import schedule_group
from evo_tvm.kernels.lower_group import lower_group
from evo_tvm.plan.assign_layouts import assign_layouts
from evo_tvm.plan.storage import Placement
from evo_tvm.target import resolve
from evo_tvm.tune import revision
from evo_tvm.tune.one_kernel import graph_of
from evo_tvm.tune.revision import is_stale, revision_of
from evo_tvm.workload import Workload

FILE = Path(__file__).parents[1] / "data" / "kernel_revisions.json"
RENEW = "EVO_TVM_RENEW"
TARGETS = ("cascadelake", "x86-64-v3")
CONV, ONE = "dilation=1,1 groups=1 padding=1,1,1,1 stride=1,1", "dilation=1,1 groups=1 padding=0,0,0,0 stride=1,1"
#: Key, output, epilogue. Each algorithm is tried on all that it fits.
PROBES = (
    (f"conv2d 1x32x14x14 48x32x3x3 {CONV} float32", (1, 48, 14, 14), ("add", "add", "relu")),
    (f"conv2d 1x32x14x14 48x32x3x3 {CONV} uint8", (1, 48, 14, 14), ("add", "rescale", "quantize")),
    ("conv2d 2x512x7x9 64x512x1x1 " + ONE + " float32", (2, 64, 7, 9), ("add",)),
    ("conv2d 1x32x7x5 32x8x3x3 dilation=1,1 groups=4 padding=1,1,1,1 stride=1,1 float32", (1, 32, 7, 5), ("add",)),
    (
        "conv2d_transpose 1x16x6x5 16x32x3x3 dilation=1,1 groups=1 output_padding=1,1 padding=1,1,1,1 stride=2,2"
        " float32",
        (1, 32, 12, 10),
        ("add", "relu"),
    ),
    (
        "depthwise_conv2d 1x32x14x14 32x1x3x3 dilation=1,1 groups=32 padding=1,1,1,1 stride=1,1 float32",
        (1, 32, 14, 14),
        ("add", "relu"),
    ),
    (
        "depthwise_conv2d 1x32x14x14 32x1x3x3 dilation=1,1 groups=32 padding=1,1,1,1 stride=1,1 uint8",
        (1, 32, 14, 14),
        ("add", "rescale", "quantize"),
    ),
    (
        "max_pool2d 1x32x13x13 count_include_pad=0 dilation=1,1 padding=1,1,1,1 pool_size=3,3 stride=2,2 float32",
        (1, 32, 7, 7),
        (),
    ),
    ("dense 1x256 256x1000 float32", (1, 1000), ("add",)),
    ("dense 1x256 256x1000 uint8", (1, 1000), ("add", "rescale", "quantize")),
    (
        "matmul 2x3x5x7 2x3x7x6 left_shape=2,3,5,7 left_strides=105,35,7,1 right_shape=2,3,7,6"
        " right_strides=126,42,6,1 float32",
        (2, 3, 5, 6),
        (),
    ),
)


def _hash(workload: Workload, algorithm: str, config: Any, target_name: str) -> str:
    target = resolve(target_name)
    graph = assign_layouts(graph_of(workload, algorithm, config), target.lanes_f32)
    (group,) = (group for group in graph.groups if group.name == "kernel")
    kernel = lower_group(graph, Placement(graph), group, target.lanes_f32, target.signed_bytes)
    code = lower(schedule_group(kernel, target).mod["main"], "kernel", target.tvm())
    return f"{tvm_ffi.structural_hash(code):016x}"


def _make() -> list[dict[str, Any]]:
    """The default and two more configurations of each algorithm that fits a probe."""
    made = []
    for target_name in TARGETS:
        target = resolve(target_name)
        for key, output, epilogue in PROBES:
            workload = Workload.from_key(key, output, epilogue)
            for name, algorithm in ALGORITHMS[workload.operator].items():
                if algorithm.refusal(workload, target) is not None:
                    continue
                space = list(algorithm.space(workload, target, 1)) or [algorithm.default(workload, target, 1)]
                configs = [algorithm.default(workload, target, 1), space[len(space) // 3], space[-1]]
                made += [
                    {
                        "target": target_name,
                        "workload": key,
                        "output": output,
                        "epilogue": epilogue,
                        "algorithm": name,
                        "config": dict(config_fields(config)),
                        "revision": revision_of(target.isa, workload.operator, name),
                        "hash": _hash(workload, name, config, target_name),
                    }
                    for config in dict.fromkeys(configs)
                ]
    return made


@cache
def _recorded() -> list[dict[str, Any]]:
    if os.environ.get(RENEW):
        FILE.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in _make()) + "\n]\n")
    found: list[dict[str, Any]] = json.loads(FILE.read_text())
    return found


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("operator", "algorithm"), [(operator, name) for operator, found in ALGORITHMS.items() for name in found]
)
def test_kernels_are_those_of_their_revision(target: str, operator: str, algorithm: str) -> None:
    entries = [
        e
        for e in _recorded()
        if (e["target"], e["workload"].split()[0], e["algorithm"]) == (target, operator, algorithm)
    ]
    for entry in entries:
        workload = Workload.from_key(entry["workload"], entry["output"], entry["epilogue"])
        config = ALGORITHMS[operator][algorithm].config_type(**entry["config"])
        now = revision_of(resolve(target).isa, operator, algorithm)
        same = entry["hash"] == _hash(workload, algorithm, config, target)
        assert same or now != entry["revision"], (
            f"kernels of {operator} {algorithm} on {target} have changed: count that in evo_tvm/tune/revision.py"
        )
        assert now == entry["revision"], f"write {FILE.name} anew: {RENEW}=1 pytest {Path(__file__).name}"


def test_all_algorithms_of_one_kernel_are_held() -> None:
    held = {(e["workload"].split()[0], e["algorithm"]) for e in _recorded()}
    there = {(operator, name) for operator, found in ALGORITHMS.items() for name in found}
    assert there - held == {("avg_pool2d", "pool"), ("depthwise_pointwise", "depthwise_pointwise")}


def test_a_change_makes_measurements_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    before = revision_of("x86", "conv2d", "spatial_pack")
    assert not is_stale(before, "conv2d", "spatial_pack")
    monkeypatch.setattr(revision, "_CHANGES", {("x86", "conv2d", "spatial_pack"): 7})
    assert is_stale(before, "conv2d", "spatial_pack")
    assert revision_of("x86", "conv2d", "spatial_pack") == "x86.7"
    assert not is_stale("arm.0", "conv2d", "spatial_pack"), "another ISA has a count of its own"


def test_of_no_algorithm_nothing_counts() -> None:
    assert revision_of("x86", "conv2d", "fft") == ""
    assert is_stale("x86.0", "conv2d", "fft") and is_stale("", "conv2d", "spatial_pack")
    assert is_stale("0123456789abcdef", "conv2d", "spatial_pack"), "a revision of another time"
