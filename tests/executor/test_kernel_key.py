"""What the key of a kernel depends on, and what it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from evo_tvm.executor import kernel_key as module
from evo_tvm.executor import revision
from evo_tvm.executor.kernel_key import kernel_key
from evo_tvm.graph import Op
from evo_tvm.kernels.lower_group import LoweredGroup, lower_group
from evo_tvm.plan.assign_layouts import assign_layouts
from evo_tvm.plan.storage import Placement
from evo_tvm.target import resolve
from tests.plan.graphs import Draft

TARGET = resolve("x86-64-v3")


def lowered(channels: int = 16, name: str = "y") -> list[LoweredGroup]:
    """Two exponentials of one value, and their sum."""
    d = Draft()
    x = d.input("x", 1, channels, 6, 6)
    d.op("add", "z", [d.same("exp", name, x), d.same("exp", f"{name}2", x)], (1, channels, 6, 6))
    graph = assign_layouts(d.graph("z"), 8)
    placement = Placement(graph)
    return [lower_group(graph, placement, g, 8, signed_bytes=False) for g in graph.groups]


def exp(channels: int = 16, name: str = "y") -> LoweredGroup:
    return next(k for k in lowered(channels, name) if k.group.anchor.kind == "exp")


def test_names_do_not_count() -> None:
    first, second, total = (kernel_key(k, TARGET) for k in lowered())
    assert first == second != total
    assert first == kernel_key(exp(name="another"), TARGET)


def test_everything_else_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = exp()
    anchor = kernel.group.anchor
    other = replace(kernel.group, ops=(Op(anchor.kind, anchor.args, {**anchor.attrs, "algorithm": "other"}),))
    keys = [
        kernel_key(kernel, TARGET),
        kernel_key(kernel, replace(TARGET, l2_bytes=TARGET.l2_bytes + 1)),
        kernel_key(kernel, replace(TARGET, features=TARGET.features[:-1])),
        kernel_key(exp(24), TARGET),
        kernel_key(replace(kernel, group=other), TARGET),
        kernel_key(replace(kernel, inputs=kernel.inputs * 2), TARGET),
        kernel_key(lowered()[2], TARGET),
    ]
    monkeypatch.setattr(module, "REVISION", "other sources")
    keys.append(kernel_key(kernel, TARGET))
    assert len(set(keys)) == len(keys)


def test_the_same_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REVISION", "fixed")  # whoever edits a source meanwhile
    code = (
        "from tests.executor.test_kernel_key import TARGET, lowered, module; module.REVISION = 'fixed';"
        "print(*(module.kernel_key(k, TARGET) for k in lowered()))"
    )
    root = Path(__file__).parent.parent.parent
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {" ".join(kernel_key(k, TARGET) for k in lowered()) + "\n"}


def test_the_revision_covers_what_shapes_code(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []
    monkeypatch.setattr(revision, "digest_files", lambda files: seen.extend(files) or "x")
    revision.revision.__wrapped__(revision.NOT_SHAPING_KERNELS)
    names = {f"{path.parent.name}/{path.name}" for path in seen}
    assert {"evo_tvm/decide.py", "schedules/winograd.py", "kernels/conv2d.py", "executor/codegen.py"} <= names
    assert not any(path.parent.name in ("cli", "runtime", "frontend") or path.suffix == ".pyc" for path in seen)
    revision.revision.__wrapped__(revision.NOT_SHAPING)
    names = {f"{path.parent.name}/{path.name}" for path in seen}
    assert {"passes/fold_pad.py", "operators/recurrent.py", "executor/support.c"} <= names
