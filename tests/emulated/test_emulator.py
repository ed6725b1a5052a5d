"""Instructions counted of kernels under an emulator."""

from __future__ import annotations

from pathlib import Path

import pytest

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.bench.count_one import count_candidate
from evo_tvm.bench.emulator import count, missing_packages
from evo_tvm.errors import EvoError
from evo_tvm.target import resolve
from evo_tvm.tune.one_kernel import Candidate
from evo_tvm.workload import Workload

ATTRIBUTES = "dilation=1,1 groups=1 padding=0,0,0,0 stride=1,1"
MACS = 48 * 64 * 49


def counted(target_name: str, dtype: str, folder: Path) -> int:
    target = resolve(target_name)
    if missing_packages(target):
        pytest.skip(f"run scripts/setup_emulators, or apt install {' '.join(missing_packages(target))}")
    key = f"conv2d 1x64x7x7 48x64x1x1 {ATTRIBUTES} {dtype}"
    workload = Workload.from_key(key, (1, 48, 7, 7), ("add", "rescale", "quantize") if dtype == "uint8" else ("add",))
    algorithm = ALGORITHMS["conv2d"]["spatial_pack"]
    return count_candidate(Candidate(workload, "spatial_pack", algorithm.default(workload, target, 1)), target, folder)


@pytest.mark.parametrize(("target", "dtype", "each"), [("cortex-a76", "uint8", 16), ("cortex-a76", "float32", 4)])
def test_a_kernel_multiplies_with_its_targets_instruction(target: str, dtype: str, each: int, tmp_path: Path) -> None:
    """No fewer instructions than products need, and not as many as one instruction a quarter of them would take."""
    found = counted(target, dtype, tmp_path)
    assert MACS / each < found < 2.5 * MACS / each


def test_the_same_kernel_takes_as_many_each_time(tmp_path: Path) -> None:
    assert counted("cortex-a76", "float32", tmp_path) == counted("cortex-a76", "float32", tmp_path)


def test_a_program_that_fails_is_told(tmp_path: Path) -> None:
    target = resolve("cortex-a76")
    if missing_packages(target):
        pytest.skip(f"run scripts/setup_emulators, or apt install {' '.join(missing_packages(target))}")
    with pytest.raises(EvoError, match="qemu-aarch64 failed with status"):
        count(target, [str(tmp_path / "nothing")], tmp_path)
