"""What the tests of convolution kernels share: a case, what any case may be, and the comparison with numpy.

A test file derives its `Case` from `Convolution`, lists its table, and says how a case becomes a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te, tirx
from tvm.s_tir import Schedule

from evo_tvm.target import host
from tests.kernels._run import Kernel, plain, relative_error, relu_output, run_in_views
from tests.reference import Padding, Pair

LANES = host().lanes_f32
SAME = (1, 1, 1, 1)
#: Of the largest value of a result.
TOLERANCE = 1e-5

Test = Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """One convolution of n x ic x image into oc channels, and how its kernel is run.

    padding: (top, left, bottom, right); views: input and output are parts of larger tensors.
    """

    n: int
    ic: int
    oc: int
    image: Pair
    kernel: Pair = (3, 3)
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    threads: int = 1
    views: bool = False

    def __str__(self) -> str:
        """What differs from the defaults; a configuration is left out."""
        values = ((f, getattr(self, f.name)) for f in fields(self) if f.name != "config")
        return "-".join(f"{f.name}{value}" for f, value in values if value != f.default)


def normal(*shapes: Sequence[int]) -> list[np.ndarray]:
    """Arrays of normal float32 numbers, the same ones in every run."""
    rng = np.random.default_rng(7)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def assert_close(
    case: Convolution,
    arrays: Sequence[np.ndarray],
    stage: Callable[..., te.Tensor],
    schedule: Callable[[tirx.PrimFunc], Schedule],
    wanted: np.ndarray,
) -> None:
    """The kernel of `stage`, with a ReLU behind it, gives max(wanted, 0) of `arrays`.

    arrays: the kernel's operands, as they lie in memory; the first is the data in blocks of channels.
    stage: makes the TE stage of placeholders p0, p1, ... of these arrays.
    wanted: NCHW.
    """
    operands = [te.placeholder(a.shape, str(a.dtype), name=f"p{i}") for i, a in enumerate(arrays)]
    func = te.create_prim_func([*operands, relu_output(stage(*operands))])
    if case.views:
        got = run_in_views(func, schedule, host(), *arrays)
    else:
        got = Kernel(schedule(func).mod["main"], host(), case.threads)(*arrays)
    assert relative_error(plain(got, wanted.shape[1]), np.maximum(wanted, 0)) < TOLERANCE


def table(cases: Iterable[Convolution]) -> pytest.MarkDecorator:
    """Runs a test of `case` on each of `cases`."""
    return pytest.mark.parametrize("case", cases, ids=str)


def any_case(
    kind: Callable[..., Convolution], shapes: st.SearchStrategy[dict[str, Any]], **others: st.SearchStrategy[Any]
) -> Callable[[Test], Test]:
    """Runs a test of `case` on ten of what `kind` makes of `shapes` and `others`, which are keywords of it."""
    cases = st.builds(lambda shape, rest: kind(**shape, **rest), shapes, st.fixed_dictionaries(others))
    return lambda test: settings(max_examples=10, deadline=None)(given(case=cases)(test))


def upto(high: int) -> st.SearchStrategy[int]:
    return st.integers(1, high)


def pairs(high: int) -> st.SearchStrategy[Pair]:
    return st.tuples(upto(high), upto(high))


@st.composite
def windows(draw: st.DrawFn, kernel: int = 3, dilation: int = 1, spare: int = 8, padding: int = 2) -> dict[str, Any]:
    """A batch of images, and a window that fits into them: up to `spare` rows and columns larger than the window."""
    size, apart = draw(pairs(kernel)), draw(pairs(dilation))
    return {
        "n": draw(upto(2)),
        "image": tuple(d * (k - 1) + 1 + draw(st.integers(0, spare)) for d, k in zip(apart, size, strict=True)),
        "kernel": size,
        "stride": draw(pairs(3)),
        "dilation": apart,
        "padding": draw(st.tuples(*[st.integers(0, padding)] * 4)),
    }
