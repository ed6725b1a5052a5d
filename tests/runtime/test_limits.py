"""What the CPU does at most: measured once a process, on a buffer that no cache holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evo_tvm.artifact import Artifact
from evo_tvm.errors import EvoError
from evo_tvm.runtime import limits
from evo_tvm.runtime.limits import Limits, measure_limits
from evo_tvm.runtime.manifest import TargetInfo

HOST = TargetInfo("host", "x86_64-linux-gnu", "generic", ())


class Fake:
    """Stands for a library whose measurements are known."""

    def __init__(self, code: int = 0, rates: tuple[float, float, float] = (100.0, 400.0, 10.0)) -> None:
        self.code, self.rates, self.sizes = code, rates, list[int]()

    def measure(self, pool: int, size: int, rates: Any) -> int:
        self.sizes.append(size)
        rates[0], rates[1], rates[2] = self.rates
        return self.code


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_known", {})


def measured(fake: Fake, threads: int = 1, target: TargetInfo = HOST, integers: bool = True) -> Limits:
    return measure_limits(fake, 0, threads, target, integers)  # type: ignore[arg-type]


def test_once_for_each_target_and_number_of_threads() -> None:
    fake = Fake()
    assert measured(fake) == measured(fake) == Limits(100.0, 10.0, 400.0)
    assert len(fake.sizes) == 1
    measured(fake, threads=2)
    measured(fake, target=TargetInfo("other", "x86_64-linux-gnu", "generic", ("avx2",)))
    assert len(fake.sizes) == 3


def test_zero_means_not_measured() -> None:
    assert measured(Fake(rates=(0.0, 0.0, 0.0))) == Limits(None, None, None)


def test_a_float_model_does_not_decide_what_is_known_for_an_integer_one() -> None:
    assert measured(Fake(rates=(100.0, 0.0, 10.0)), integers=False) == Limits(100.0, 10.0, None)
    assert measured(Fake()) == Limits(100.0, 10.0, 400.0)
    assert measured(Fake(), integers=False).integer_peak_gops_per_s is None


def test_a_failure_is_an_error_and_is_not_kept() -> None:
    with pytest.raises(EvoError, match="no threads"):
        measured(Fake(code=-1001))
    assert measured(Fake()) == Limits(100.0, 10.0, 400.0)


@pytest.mark.parametrize(
    ("sizes", "mebibytes"),
    [({}, 64), ({0: "32K", 2: "1024K"}, 64), ({0: "32K", 3: "36608K"}, 143), ({3: "1G"}, 256), ({3: "?"}, 64)],
)
def test_the_buffer_is_four_times_the_largest_cache(
    sizes: dict[int, str], mebibytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index, text in sizes.items():
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{text}\n")
    monkeypatch.setattr(limits, "_CACHES", tmp_path)
    fake = Fake()
    measured(fake)
    assert fake.sizes[0] >> 20 == mebibytes


def test_two_threads_measure_too(artifact: Artifact) -> None:
    with artifact.module(2) as mod:
        assert mod.profile(repeat=1).memory_gbytes_per_s is not None
