"""A program of the executor: a straight list of steps over inputs, outputs, weights, prepared weights and one arena."""

from __future__ import annotations

from dataclasses import dataclass

from evo_tvm.kernels.pack import Preparation


@dataclass(frozen=True)
class Pointer:
    """`offset` bytes into input or output number `index`, or into "weights", "prepared", "arena" or "masks"."""

    space: str
    offset: int
    index: int = 0


@dataclass(frozen=True)
class Condition:
    """That the decision number `slot` of this run is 1 (`on`), or 0."""

    slot: int
    on: bool


@dataclass(frozen=True)
class Rectangle:
    """The kernel that computes `down` by `across` tiles of an image at once, `height` by `width` pixels.

    arguments: of the image's first rectangle; strides: bytes from one pixel of the output to the next, down and across,
    in each of them.
    """

    down: int
    across: int
    height: int
    width: int
    symbol: str
    arguments: tuple[Pointer, ...]
    strides: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Tiles:
    """Which tiles of an image are computed: decisions from `slot` on, `rows` by `columns` of them.

    side: of a tile; margin: pixels around it that are computed, too; height, width: of the image. rectangles: the
    largest first.
    """

    slot: int
    rows: int
    columns: int
    side: int
    margin: int
    height: int
    width: int
    rectangles: tuple[Rectangle, ...] = ()


@dataclass(frozen=True)
class Call:
    """One kernel call: the C function `symbol` on `arguments`; `kernel` numbers the call in the profile.

    guards: here and below, what must hold for the step to be taken. tiles: where not all tiles are on, rectangles of
    those that are on are computed instead.
    """

    symbol: str
    arguments: tuple[Pointer, ...]
    kernel: int
    guards: tuple[Condition, ...] = ()
    tiles: Tiles | None = None


@dataclass(frozen=True)
class ClearTiles:
    """Zeros in the tiles that are off: `planes` images of pixels of `pixel_bytes`, `row_bytes` from row to row."""

    at: Pointer
    planes: int
    plane_bytes: int
    row_bytes: int
    pixel_bytes: int
    tiles: Tiles
    guards: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class FillBorder:
    """`byte` around `planes` images of `rows` by `columns` pixels (border included) of `pixel_bytes` each."""

    at: Pointer
    byte: int
    planes: int
    rows: int
    columns: int
    pixel_bytes: int
    halo: tuple[int, int, int, int]
    guards: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class Copy:
    """`size_bytes` bytes from one place to another: an output that is an input, a constant, or another output."""

    source: Pointer
    target: Pointer
    size_bytes: int
    guards: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class Decide:
    """Gate number `gate` decides from `count` logits; its decisions begin at `slot`, one for each but for an exit's.

    mask: gets the decisions spread over `channels` channels.
    """

    gate: int
    kind: str
    logits: Pointer
    count: int
    slot: int
    mask: Pointer | None = None
    channels: int = 0
    guards: tuple[Condition, ...] = ()


Step = Call | ClearTiles | FillBorder | Copy | Decide


@dataclass(frozen=True)
class Prepare:
    """A constant that is made of a smaller one, once, before the first run."""

    source: Pointer
    target: Pointer
    how: Preparation


@dataclass(frozen=True)
class PlannedGate:
    """A gate of the program: its name and kind, its threshold to begin with, and how many decisions it makes.

    channels: over which they are spread as a mask.
    """

    name: str
    kind: str
    threshold: float
    decisions: int
    channels: int = 0


@dataclass(frozen=True)
class Program:
    """What the executor emits as `main`, and as what goes before its first run.

    `weights`: every constant once, as the .evo file keeps it. `prepared_bytes`: the memory that `preparations` fill.
    `gates`: in the order in which they decide.
    """

    steps: tuple[Step, ...]
    weights: bytes | memoryview
    arena_bytes: int
    preparations: tuple[Prepare, ...] = ()
    prepared_bytes: int = 0
    gates: tuple[PlannedGate, ...] = ()
