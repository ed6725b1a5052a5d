"""The arena: what lives at the same time shares no bytes."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from evo_tvm.executor.memory import ALIGNMENT, Lifetime, align, plan_arena


@st.composite
def storages(draw: st.DrawFn) -> list[Lifetime]:
    spans = st.tuples(st.integers(0, 5000), st.integers(0, 20), st.integers(0, 8))
    return [Lifetime(f"v{i}", size, a, a + d) for i, (size, a, d) in enumerate(draw(st.lists(spans, max_size=25)))]


@given(storages())
def test_no_two_that_live_together_overlap(items: list[Lifetime]) -> None:
    offsets, size = plan_arena(items)
    assert set(offsets) == {item.name for item in items}
    for item in items:
        assert offsets[item.name] % ALIGNMENT == 0
        assert offsets[item.name] + item.size_bytes <= size
    for a, b in combinations(items, 2):
        apart_in_time = a.last < b.first or b.last < a.first
        start_a, start_b = offsets[a.name], offsets[b.name]
        apart = start_a + a.size_bytes <= start_b or start_b + b.size_bytes <= start_a
        assert apart_in_time or apart or not a.size_bytes or not b.size_bytes


@given(storages())
def test_the_arena_is_between_the_peak_and_the_sum(items: list[Lifetime]) -> None:
    _, size = plan_arena(items)
    assert size <= sum(align(item.size_bytes) for item in items)
    steps = {item.first for item in items}
    assert size >= max((sum(i.size_bytes for i in items if i.first <= s <= i.last) for s in steps), default=0)


def test_a_chain_needs_two_places() -> None:
    _, size = plan_arena([Lifetime(f"v{i}", 640, i, i + 1) for i in range(10)])
    assert size == 2 * 640


def test_a_gap_is_filled() -> None:
    items = [Lifetime("long", 1280, 0, 1), Lifetime("top", 640, 0, 9), Lifetime("late", 1024, 2, 9)]
    offsets, size = plan_arena(items)
    assert offsets == {"long": 0, "top": 1280, "late": 0} and size == 1920


def test_alignment() -> None:
    assert [align(n) for n in (0, 1, 64, 65)] == [0, 64, 64, 128]
