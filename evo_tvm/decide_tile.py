"""The side of the tiles in which an image is computed or left out, by the predicted time of what computes them."""

from __future__ import annotations

from dataclasses import replace

from evo_tvm.decide import Knowledge, compared, configure, decide
from evo_tvm.errors import UsageError
from evo_tvm.target import Target
from evo_tvm.workload import Workload

#: A tile may take this many times its share of the whole image's time.
_WORTH = 1.3
#: Smaller tiles have more border than inside; larger than half of the image there is nothing to choose.
_SMALLEST = 4


def tile_candidates(height: int, width: int) -> tuple[int, ...]:
    """Sides of square tiles that an image can be divided into, smallest first."""
    sides = range(_SMALLEST, min(height, width) // 2 + 1)
    return tuple(side for side in sides if height % side == 0 and width % side == 0)


def choose_tile(workload: Workload, target: Target, num_threads: int = 1, known: Knowledge | None = None) -> int:
    """The smallest tile of a convolution's output whose time, over all tiles, is at most 1.3 of that of the whole
    image; where there is none, the one with the least. Times are those of the algorithm that the whole image gets, in
    the best configuration that is known of each: measured or predicted where all are, else all estimated.

    known: what decides, in place of all that there is for the target. Small tiles follow what matters in an image more
    closely. Han et al., "Latency-aware Spatial-wise Dynamic Networks" (NeurIPS 2022) choose the granularity by a
    latency predictor, too. Raises UsageError: no tile divides the image.
    """
    _, _, height, width = workload.output
    parts = {tile: tile_workload(workload, tile, tile) for tile in tile_candidates(height, width)}
    if not parts:
        raise UsageError(
            f"an image of {height}x{width} pixels cannot be divided into square tiles",
            expected=f"a side of at least {_SMALLEST} pixels that divides both, twice or more",
        )
    known = known or Knowledge.of(target)
    ranking = known.ranking(target, num_threads)
    several = [workload, *parts.values()]
    ranking.prepare(several)
    name = decide(workload, target, num_threads, known.log, ranking=ranking).algorithm
    configured = [configure(some, name, target, num_threads, known.log, ranking) for some in several]
    whole, *each = compared(several, configured, target, num_threads)
    costs = {tile: ms * height * width / tile**2 for tile, ms in zip(parts, each, strict=True)}
    return next((tile for tile, cost in costs.items() if cost <= _WORTH * whole), min(costs, key=costs.__getitem__))


def tile_of_image(shape: tuple[int, int, int, int], target: Target) -> int:
    """The tile for a 3x3 convolution that gives an image of this shape, (1, C, H, W), from one like it."""
    channels = shape[1]
    same = ("stride", (1, 1)), ("padding", (1, 1, 1, 1)), ("dilation", (1, 1)), ("groups", (1,))
    workload = Workload("conv2d", (shape, (channels, channels, 3, 3)), shape, tuple(sorted(same)))
    return choose_tile(workload, target)


def tile_workload(workload: Workload, height: int, width: int) -> Workload:
    """The workload of a rectangle of a convolution's output; its input is as much smaller."""
    (n, ic, *_), *others = workload.shapes
    down, across = workload.attributes["stride"]
    data = (n, ic, height * down, width * across)
    return replace(workload, shapes=(data, *others), output=(*workload.output[:2], height, width))
