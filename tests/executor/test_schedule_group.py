"""What is said about a schedule that has no configuration."""

from __future__ import annotations

import pytest
from tvm import te
from tvm.s_tir import Schedule

from evo_tvm.executor.schedule_group import loops_text


def _two_nests() -> Schedule:
    x = te.placeholder((8, 16), "float32", "x")
    a = te.compute((8, 16), lambda i, j: x[i, j] * 2.0, "a")
    b = te.compute((8, 16), lambda i, j: a[7 - i, j] + 1.0, "b")
    return Schedule(te.create_prim_func([x, b]))


@pytest.mark.parametrize(
    ("parallel", "vectors", "text"),
    [
        ("", "", "serial"),
        ("", "ab", "vectorized"),
        ("a", "", "partly parallel"),
        ("ab", "b", "parallel partly vectorized"),
        ("ab", "ab", "parallel vectorized"),
    ],
)
def test_loops_in_words(parallel: str, vectors: str, text: str) -> None:
    sch = _two_nests()
    for name in parallel:
        sch.parallel(sch.get_loops(sch.get_sblock(name))[0])
    for name in vectors:
        sch.vectorize(sch.get_loops(sch.get_sblock(name))[1])
    assert loops_text(sch) == text
