"""A workload and its configuration as loops: the counts that every estimate of its time is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from evo_tvm.algorithms._register_tile import image_cycles
from evo_tvm.algorithms.spatial_pack import dot_terms, reduction_step
from evo_tvm.target import Target
from evo_tvm.workload import Workload, blocks_of

_CONVOLUTIONS = frozenset(("conv2d", "conv2d_transpose", "depthwise_pointwise"))
_WINDOWS = frozenset(("depthwise_conv2d", "max_pool2d", "avg_pool2d"))
_WINOGRAD_TILES = {"winograd2": 2, "winograd4": 4}


@dataclass(frozen=True)
class Geometry:
    """The loops of one kernel. An image is the pixels that share weights: rows of a matrix are an image of one row.

    macs: multiply-adds of the operator as it is defined, without padding. images: how often the loops below run;
    blocks: of output channels, `block_vectors` vectors each; height, width: of the image; tile: (blocks, rows, columns)
    of the register tile; steps: of the reduction, of a broadcast value and a vector each; taps, stride: of a window,
    products of both directions. weight_bytes, input_bytes, output_bytes: as they lie in memory, idle lanes included.
    panel_bytes: weights that a tile reads before it goes on to other pixels; rows_bytes: input that a row of tiles
    reads; passes: how often the weights are read; lanes: numbers in a vector.
    """

    macs: float
    images: float
    blocks: int
    block_vectors: int
    height: int
    width: int
    tile: tuple[int, int, int]
    steps: float
    weight_bytes: float
    input_bytes: float
    output_bytes: float
    panel_bytes: float
    rows_bytes: float
    passes: float
    taps: int = 1
    stride: int = 1
    lanes: int = 1

    @property
    def accumulators(self) -> int:
        """Registers that hold sums."""
        return math.prod(self.tile) * self.block_vectors

    @property
    def vector_steps(self) -> float:
        """Vector multiply-adds, those of idle lanes included."""
        return self.images * self.steps * self.blocks * self.block_vectors * self.height * self.width

    @property
    def tiled_cycles(self) -> float:
        """Cycles that they take over all tiles, those at the edges included."""
        tile = image_cycles(self.blocks, self.height, self.width, *self.tile, self.block_vectors)
        return self.images * self.steps * tile

    @property
    def tiles(self) -> float:
        """Register tiles of one call."""
        (o, i, j), n = self.tile, self.images
        return n * math.ceil(self.blocks / o) * math.ceil(self.height / i) * math.ceil(self.width / j)


def geometry_of(workload: Workload, algorithm: str, config: Any, target: Target) -> Geometry:
    """The loops of `workload` computed so. Operators without algorithms of their own pass over their elements once."""
    if workload.operator in _CONVOLUTIONS:
        return _convolution(workload, algorithm, config, target)
    if workload.operator in _WINDOWS:
        return _window(workload, config, target)
    if workload.operator in ("dense", "matmul"):
        return _product(workload, config, target)
    return _elements(workload, target)


def _convolution(workload: Workload, algorithm: str, config: Any, target: Target) -> Geometry:
    n, oc, height, width = workload.output
    _, channels, *image = workload.shapes[0]
    kernel = workload.shapes[1]
    attrs, lanes, size = workload.attributes, target.lanes_f32, _itemsize(workload.dtype)
    fused, transposed = workload.operator == "depthwise_pointwise", workload.operator == "conv2d_transpose"
    kh, kw = (1, 1) if fused else kernel[2:]
    ic = channels if fused or transposed else kernel[1]
    read, written = blocks_of(workload, lanes)
    if fused:
        read = lanes
    step = reduction_step(ic, read)
    depth = math.ceil(ic / step) * step / math.prod(dot_terms(workload.dtype))
    stride = attrs.get("stride", (1, 1))
    macs = float(n * oc * height * width * ic * kh * kw)
    images, taps = float(n), kh * kw
    rows_read = height * stride[0] if not transposed else image[0]
    if transposed:
        macs /= math.prod(stride)
        height, width = math.ceil(height / stride[0]), math.ceil(width / stride[1])
    if fused:
        macs += float(math.prod(workload.output) / oc * channels * math.prod(kernel[2:]))
    o, i, j = _get(config, "oc_tile", 1), _get(config, "oh_tile", 1), _get(config, "ow_tile", 1)
    group_rows = _get(config, "group_rows", 0) or _get(config, "rows", 0)
    weights = math.ceil(oc / written) * written * depth * taps * 4
    passes = n * height / group_rows if group_rows else float(n)
    if algorithm in _WINOGRAD_TILES:
        m = _WINOGRAD_TILES[algorithm]
        down, across = math.ceil(height / m), math.ceil(width / m)
        group = min(group_rows, down) or 1
        taps, images = (m + 2) ** 2, n * down / group
        height, width, passes = group, across, images
        i, j = _get(config, "row_tile", 1), _get(config, "column_tile", 1)
        weights = weights / (kh * kw) * taps
        rows_bytes = taps * channels * across * group * 4.0
    elif algorithm in ("im2col", "indirect"):
        height, width, i, j = 1, height * width, 1, _get(config, "pixel_tile", 1)
        passes = n * math.ceil(width / (j * (_get(config, "tiles", 0) or 1)))
        rows_bytes = depth * taps * 4.0 * j * (_get(config, "tiles", 0) or 1)
    else:
        rows = (group_rows or i) * stride[0] + kh - 1 if not transposed else i + kh - 1
        rows_bytes = float(channels * rows * image[1] * size)
    chunk = _get(config, "depth_chunk", 0) * step / math.prod(dot_terms(workload.dtype)) or depth
    return Geometry(
        macs=macs,
        images=images,
        blocks=math.ceil(oc / written),
        block_vectors=math.ceil(written / lanes),
        height=height,
        width=width,
        tile=(o, i, j),
        steps=depth * taps,
        weight_bytes=weights,
        input_bytes=float(n * math.ceil(channels / read) * read * max(image[0], rows_read) * image[1] * size),
        output_bytes=_output_bytes(workload),
        panel_bytes=o * written * chunk * taps * 4.0,
        rows_bytes=rows_bytes,
        passes=passes,
        taps=kh * kw,
        lanes=lanes,
        stride=math.prod(stride),
    )


def _window(workload: Workload, config: Any, target: Target) -> Geometry:
    n, channels, height, width = workload.output
    image, lanes, size = workload.shapes[0][2:], target.lanes_f32, _itemsize(workload.dtype)
    window = workload.attributes.get("pool_size", workload.shapes[-1][2:])
    taps, blocks = math.prod(window), math.ceil(channels / lanes)
    i, j = _get(config, "oh_tile", 1), _get(config, "ow_tile", 1)
    rows = i * workload.attributes.get("stride", (1, 1))[0] + window[0] - 1
    return Geometry(
        macs=float(math.prod(workload.output) * taps),
        images=float(n),
        blocks=blocks,
        block_vectors=1,
        height=height,
        width=width,
        tile=(1, i, j),
        steps=float(taps),
        weight_bytes=float(blocks * lanes * taps * 4) if workload.operator == "depthwise_conv2d" else 0.0,
        input_bytes=float(n * blocks * lanes * math.prod(image) * size),
        output_bytes=_output_bytes(workload),
        panel_bytes=lanes * taps * 4.0,
        rows_bytes=float(lanes * rows * image[1] * size),
        passes=1.0,
        taps=taps,
        lanes=lanes,
        stride=math.prod(workload.attributes.get("stride", (1, 1))),
    )


def _product(workload: Workload, config: Any, target: Target) -> Geometry:
    attrs, lanes, four = workload.attributes, target.lanes_f32, math.prod(dot_terms(workload.dtype))
    if workload.operator == "dense":
        batch, rows = 1, math.prod(workload.output[:-1])
        depth, columns = workload.shapes[1]
    else:
        left, right = attrs["left_shape"], attrs["right_shape"]
        batch = math.prod(workload.output) // max(1, left[-2] * right[-1])
        rows, depth, columns = left[-2], left[-1], right[-1]
    panels, steps = math.ceil(columns / lanes), math.ceil(depth / four)
    o, j = _get(config, "panel_tile", 1), _get(config, "row_tile", 1)
    weights = batch * panels * lanes * steps * 4.0
    return Geometry(
        macs=float(batch * rows * depth * columns),
        images=float(batch),
        blocks=panels,
        block_vectors=1,
        height=1,
        width=rows,
        tile=(o, 1, j),
        steps=float(steps),
        weight_bytes=weights,
        input_bytes=float(batch * rows * depth * _itemsize(workload.dtype)),
        output_bytes=_output_bytes(workload),
        panel_bytes=o * lanes * 4.0 * (_get(config, "depth_chunk", 0) or steps),
        rows_bytes=float(j * depth * _itemsize(workload.dtype)),
        passes=float(math.ceil(rows / j)),
        lanes=lanes,
    )


def _elements(workload: Workload, target: Target) -> Geometry:
    size, elements = _itemsize(workload.dtype), math.prod(workload.output)
    read = float(sum(math.prod(shape) for shape in workload.shapes) * size)
    vectors = math.ceil(max(elements, read / size) / target.lanes_f32)
    return Geometry(
        macs=float(max(elements, read / size)),
        images=1.0,
        blocks=1,
        block_vectors=1,
        height=1,
        width=vectors,
        tile=(1, 1, 1),
        steps=1.0,
        weight_bytes=0.0,
        input_bytes=read,
        output_bytes=_output_bytes(workload),
        panel_bytes=0.0,
        rows_bytes=0.0,
        passes=1.0,
    )


def _output_bytes(workload: Workload) -> float:
    """Of the kernel's result: integers that are not rescaled to bytes are four bytes each."""
    narrow = workload.dtype == "uint8" and (
        "quantize" in workload.epilogue[-1:] or workload.operator not in (*_CONVOLUTIONS, "dense", "depthwise_conv2d")
    )
    return math.prod(workload.output) * (1.0 if narrow else 4.0)


def _itemsize(dtype: str) -> int:
    return 1 if dtype in ("uint8", "int8", "bool") else 8 if dtype.endswith("64") else 4


def _get(config: Any, name: str, default: int) -> int:
    """A tunable of a configuration, which may be a mapping, as logs have it, or None."""
    found = config.get(name, default) if isinstance(config, dict) else getattr(config, name, default)
    return int(found)
