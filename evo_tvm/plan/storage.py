"""Where each value lies: which storage, how far in, at what strides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from evo_tvm.graph import Graph, Value


@dataclass(frozen=True)
class Storage:
    """One run of bytes: the value `root` with its border, or a constant, an input, an output."""

    root: str
    size_bytes: int


@dataclass(frozen=True)
class View:
    """A rectangle of a storage, as a kernel's parameter: `shape` and `strides` in elements, `offset_bytes` into it."""

    root: str
    offset_bytes: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str

    @property
    def compact(self) -> bool:
        """Whether the elements lie one after the other."""
        return all(e == 1 or s == c for e, s, c in zip(self.shape, self.strides, _compact(self.shape), strict=True))


def _compact(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def physical_shape(value: Value) -> tuple[int, ...]:
    """The value's elements as they lie, border left out: (N, C/b, H, W, b), or its logical shape when plain."""
    block = value.layout.block
    if block == 1:
        return value.shape
    n, c, h, w = value.shape
    return n, -(-c // block), h, w, block


def storage_bytes(value: Value) -> int:
    """Bytes of the value with its border."""
    top, left, bottom, right = value.layout.halo
    shape = physical_shape(value)
    if any(value.layout.halo):
        shape = (*shape[:2], shape[2] + top + bottom, shape[3] + left + right, *shape[4:])
    return math.prod(shape) * np.dtype(value.dtype).itemsize


class Placement:
    """Resolves parts and views of a graph down to the storages that exist."""

    def __init__(self, graph: Graph) -> None:
        self.values: Mapping[str, Value] = graph.values
        self._parts = graph.parts
        self._same = {g.output: g.inputs[0] for g in graph.groups if g.anchor.kind == "view"}

    def root(self, name: str) -> str:
        """The value whose storage holds `name`."""
        while name in self._same or name in self._parts:
            name = self._same[name] if name in self._same else self._parts[name].whole
        return name

    def view(
        self, name: str, shape: tuple[int, ...] | None = None, padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    ) -> View:
        """The value as a kernel reads or writes it, `padding` (top, left, bottom, right) of its border included.

        `shape`: for a value without border, the shape under which the kernel sees the same elements.
        """
        value = self.values[name]
        root, item = self.root(name), np.dtype(value.dtype).itemsize
        if value.layout.block == 1 and not any(value.layout.halo):
            seen = value.shape if shape is None else shape
            return View(root, 0, seen, _compact(seen), value.dtype)
        block = value.layout.block
        top, left, bottom, right = value.layout.halo
        n, c, h, w = value.shape
        channel, whole = 0, value
        while whole.name in self._parts:
            channel += self._parts[whole.name].channel
            whole = self.values[self._parts[whole.name].whole]
        rows, columns = h + top + bottom, w + left + right
        plane = rows * columns * block
        blocks, all_blocks = -(-c // block), -(-whole.shape[1] // block)
        offset = channel // block * plane + ((top - padding[0]) * columns + left - padding[1]) * block
        return View(
            root,
            offset * item,
            (n, blocks, h + padding[0] + padding[2], w + padding[1] + padding[3], block),
            (all_blocks * plane, plane, columns * block, block, 1),
            value.dtype,
        )


class PartPlacement(Placement):
    """Of a graph whose images are rectangles of those that `whole` places: same strides, fewer rows and columns.

    Only of what lies in blocks of channels.
    """

    def __init__(self, whole: Placement, values: Mapping[str, Value]) -> None:
        self.whole, self.small = whole, values
        self.values = whole.values

    def root(self, name: str) -> str:
        """The value whose storage holds `name`."""
        return self.whole.root(name)

    def view(
        self, name: str, shape: tuple[int, ...] | None = None, padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    ) -> View:
        """The value's first rectangle as a kernel reads or writes it, `padding` around it included."""
        view, small = self.whole.view(name, shape, padding), self.small[name]
        if small.shape == self.values[name].shape:
            return view
        assert len(view.shape) == 5, "only blocked images are computed in rectangles"
        top, left, bottom, right = padding
        return replace(
            view, shape=(*view.shape[:2], small.shape[2] + top + bottom, small.shape[3] + left + right, view.shape[4])
        )


def permuted(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and strides of a compact tensor whose axes are seen in another order."""
    strides = _compact(shape)
    return tuple(shape[a] for a in axes), tuple(strides[a] for a in axes)
