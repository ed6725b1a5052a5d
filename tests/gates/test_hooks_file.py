"""`.hooks` files: what is saved is read again; killed trainings and altered files do no harm."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from evo_tvm.errors import InputError
from evo_tvm.gates.hook import Hook
from evo_tvm.gates.hooks_file import load_hooks, save_hooks
from evo_tvm.gates.network import start

HOOKS = (
    Hook("Relu_7", "skip", "Relu_3", start(16, 0, 1), -math.inf),
    Hook("Relu_7", "exit", "Relu_7", start(16, 12, 10), 0.87),
    Hook("Relu_7", "space", "Relu_3", start(16, 0, 1), 0.5, 14),
)


def test_hooks_are_read_as_they_were_saved(tmp_path: Path) -> None:
    save_hooks(tmp_path / "m.hooks", HOOKS, {"accuracy": 0.93})
    found = load_hooks(tmp_path / "m.hooks")
    assert found.report == {"accuracy": 0.93}
    for got, wanted in zip(found.hooks, HOOKS, strict=True):
        assert (got.site, got.kind, got.feature, got.threshold, got.tile) == (
            wanted.site,
            wanted.kind,
            wanted.feature,
            wanted.threshold,
            wanted.tile,
        )
        assert len(got.weights) == len(wanted.weights)
        for a, b in zip(got.weights, wanted.weights, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_file_that_is_missing_damaged_altered_or_newer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.hooks"
    with pytest.raises(InputError, match=r"m.hooks: no such file"):
        load_hooks(path)
    save_hooks(path, HOOKS)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a file of hooks, or a damaged one"):
        load_hooks(path)
    members = {}
    path.write_bytes(whole)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def write(**changed: bytes) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in {**members, **{k.replace("__", "."): v for k, v in changed.items()}}.items():
                archive.writestr(name, data)

    array = bytearray(members["0_0.npy"])
    array[-1] ^= 1
    write(**{"0_0__npy": bytes(array)})
    with pytest.raises(InputError, match=r"0_0.npy: is altered: a checksum differs"):
        load_hooks(path)
    write(hooks__json=members["hooks.json"].replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(InputError, match=r"newer format \(expected up to 1, got 2\)"):
        load_hooks(path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "m.hooks"
    save_hooks(path, HOOKS)
    with zipfile.ZipFile(path) as archive:
        assert all(name.endswith((".npy", ".json")) for name in archive.namelist())


KILLED = """
import sys
import numpy as np
from evo_tvm.gates.hook import Hook
from evo_tvm.gates.hooks_file import save_hooks
for number in range(10**9):
    weights = (np.full((400, 300), number, np.float32), np.full(300, number, np.float32))
    save_hooks(sys.argv[1], [Hook("a", "exit", "a", weights, 0.5)], {"number": number})
    print(number, flush=True)
"""


def test_a_killed_training_leaves_the_last_saved_hooks_readable(tmp_path: Path) -> None:
    path = tmp_path / "m.hooks"
    for pause_s in (0.0, 0.004, 0.011):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(pause_s)
            os.kill(process.pid, signal.SIGKILL)
        found = load_hooks(path)
        assert found.hooks[0].weights[0][0, 0] == found.report["number"]
