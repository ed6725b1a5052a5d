from __future__ import annotations

import re
import sys
from collections.abc import Callable

import pytest

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.tune import revision


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The revision of an algorithm with the source of a module edited."""

    def compute(module: str, pattern: str, replacement: str, algorithm: str = "spatial_pack") -> str:
        real = SOURCE
        text, count = re.subn(pattern, replacement, real(module), count=1, flags=re.MULTILINE)
        assert count == 1
        monkeypatch.setattr(revision, "_source", lambda name: text if name == module else real(name))
        revision._imports.cache_clear()
        found = REVISION_OF("conv2d", algorithm)
        revision._imports.cache_clear()
        return str(found)

    return compute


SOURCE = revision._source.__wrapped__
REVISION_OF = revision.revision_of.__wrapped__
NOW = revision.revision_of("conv2d", "spatial_pack")
SCHEDULE, ALGORITHM = "evo_tvm.schedules.spatial_pack", "evo_tvm.algorithms.spatial_pack"


def test_each_algorithm_has_its_own() -> None:
    for operator, algorithms in ALGORITHMS.items():
        assert len({revision.revision_of(operator, name) for name in algorithms}) == len(algorithms)
    assert revision.revision_of("conv2d", "fft") == ""


def test_a_changed_schedule_or_kernel_changes_it(edited: Callable[..., str]) -> None:
    assert edited(SCHEDULE, r"^    sch = Schedule\(func\)$", "    sch = Schedule(func, debug_mask='all')") != NOW
    assert edited("evo_tvm.kernels.conv2d", r"^CHUNK = .*$", "CHUNK = 7") != NOW
    assert edited("evo_tvm.schedules.common", r"^def extent", "def extents") != NOW
    assert edited(ALGORITHM, r"^(    def stage\(.*)$", r"\1\n        self.changed = True") != NOW


def test_what_only_judges_does_not(edited: Callable[..., str]) -> None:
    assert edited(ALGORITHM, r"^(    def space\(.*)$", r"\1\n        self.changed = True") == NOW
    assert edited(ALGORITHM, r"^(    def cycles\(.*)$", r"\1\n        self.changed = True") == NOW
    assert edited("evo_tvm.schedules.winograd", r"^def schedule", "def plan") == NOW


def test_comments_and_docstrings_do_not(edited: Callable[..., str]) -> None:
    assert edited(SCHEDULE, r'^"""Schedule', '"""A schedule') == NOW
    assert edited(SCHEDULE, r"^    sch = Schedule\(func\)$", "    sch = Schedule(func)  # new") == NOW
    assert edited(SCHEDULE, r"^    sch = Schedule\(func\)$", "    # a comment\n\n    sch = Schedule(func)") == NOW


def test_it_follows_every_module_that_makes_the_kernel() -> None:
    assert revision._imports(ALGORITHM) >= {SCHEDULE, "evo_tvm.kernels.conv2d"}
    assert "evo_tvm.kernels.lower_group" not in revision._imports(ALGORITHM), "for type checking alone"
    assert SCHEDULE in sys.modules
