"""One arena for all intermediate values: who lives when, who may lie where.

Greedy by size (Pisarchyk & Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020): the largest
storage first, each at the lowest offset where nothing that lives at the same time lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ALIGNMENT = 64


@dataclass(frozen=True)
class Lifetime:
    """A storage of `size_bytes` that is needed from step `first` to step `last`, both included."""

    name: str
    size_bytes: int
    first: int
    last: int


def align(size: int) -> int:
    """Rounds up to whole cache lines, which are also the widest vectors."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def plan_arena(lifetimes: Sequence[Lifetime]) -> tuple[Mapping[str, int], int]:
    """(offset of each storage, bytes of the arena). Storages whose lives overlap do not."""
    placed: list[tuple[int, int, Lifetime]] = []  # offset, end, who
    offsets: dict[str, int] = {}
    for item in sorted(lifetimes, key=lambda x: (-x.size_bytes, x.first)):
        offset = 0
        for start, end, _ in sorted((p for p in placed if _overlap(p[2], item)), key=lambda p: p[0]):
            if offset + align(item.size_bytes) <= start:
                break
            offset = max(offset, end)
        offsets[item.name] = offset
        placed.append((offset, offset + align(item.size_bytes), item))
    return offsets, max((end for _, end, _ in placed), default=0)


def _overlap(a: Lifetime, b: Lifetime) -> bool:
    return a.first <= b.last and b.first <= a.last
