"""Weights as kernels read them: numpy in, numpy out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from evo_tvm.kernels.depthwise_dot import pack_depthwise_dot
from evo_tvm.kernels.grouped import pack_lanewise, pack_windowed
from evo_tvm.kernels.im2col import pack_im2col
from evo_tvm.kernels.indirect import pack_indirect
from evo_tvm.kernels.transposed import pack_transposed
from evo_tvm.kernels.winograd import F2, F4, WEIGHT_AXES, Transform, transform_bytes, transform_weights

#: The transform that each Winograd packing stands for.
TRANSFORMS: Mapping[str, Transform] = {"winograd2": F2, "winograd4": F4}


@dataclass(frozen=True)
class Preparation:
    """How a packed constant is made of a smaller one at load: Winograd's G g G^T, in float64 within.

    matrix: G, (m + 2, 3). The smaller one is packed as "filters": (blocks, channels, 3, 3, lanes). strides: of an
    element of the transformed tile, of a block and of a channel in the result, whose lanes lie side by side.
    """

    matrix: tuple[tuple[float, ...], ...]
    blocks: int
    channels: int
    lanes: int
    strides: tuple[int, int, int]


@dataclass(frozen=True)
class Packing:
    """How a constant is laid out for a kernel, and the shape that it then has.

    conv2d: OIHW -> (tiles, chunks, chunk, H, W, step, oc_tile, ob), `oc_tile` blocks of output channels a tile and
    `chunk` steps of input channels a chunk; with a ninth extent 4, a step is fours of channels, innermost;
    conv2d_by_depth: the same, chunks before tiles;
    pointwise: the same for 1x1, (tiles, I/ib, ib, oc_tile, ob); filters: OIHW -> (O/ob, I, H, W, ob);
    winograd2, winograd4: OIHW -> WEIGHT_AXES of kernels/winograd.py, transformed, made of filters at load;
    winograd2_bytes: OIHW of int8 -> int16, as `transform_bytes` there says;
    depthwise: (C, 1, H, W) -> (C/b, H, W, b); dense: (K, N) -> (tiles, chunks, chunk, panel_tile, b), `panel_tile`
    panels of b columns a tile and `chunk` rows a chunk; with a sixth extent 4, fours of rows, innermost;
    blocked: NCHW -> (N, C/b, H, W, b); plain: reshaped only;
    im2col, indirect, windowed, lanewise, transposed, depthwise_dot: as the functions of these names in kernels/ say.
    Channels are padded up to whole blocks with zeros.

    extra: what the shape does not tell: (ib,) of im2col, (groups,) of windowed, (top, left) of transposed, (stride,) of
    depthwise_dot.
    """

    kind: str
    shape: tuple[int, ...]
    extra: tuple[int, ...] = ()

    def apply(self, data: np.ndarray) -> np.ndarray:
        """The packed copy of `data`, C-contiguous."""
        return np.ascontiguousarray(_PACKERS[self.kind](data, self.shape, *self.extra))

    def dtype(self, data: str) -> str:
        """The dtype of the packed copy of constants of dtype `data`."""
        return "int16" if self.kind == "winograd2_bytes" else data

    @property
    def stored(self) -> Packing:
        """How the .evo file keeps the constant: so, or smaller where `preparation` makes this of it."""
        how = self.preparation
        return self if how is None else Packing("filters", (how.blocks, how.channels, 3, 3, how.lanes))

    @property
    def preparation(self) -> Preparation | None:
        """What makes this of what is stored; None where nothing is to be done."""
        if self.kind not in TRANSFORMS:
            return None
        extents = dict(zip(WEIGHT_AXES, self.shape, strict=True))
        strides = {axis: math.prod(self.shape[i + 1 :]) for i, axis in enumerate(WEIGHT_AXES)}
        return Preparation(
            matrix=TRANSFORMS[self.kind].g,
            blocks=extents["o"],
            channels=extents["i"],
            lanes=extents["v"],
            strides=(strides["e"], strides["o"], strides["i"]),
        )


def _pad(data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if data.shape == shape:
        return data
    padded = np.zeros(shape, data.dtype)
    padded[tuple(slice(e) for e in data.shape)] = data
    return padded


def _conv2d(data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    tiles, chunks, chunk, kh, kw, step, oc_tile, ob, *four = shape
    terms = math.prod(four)
    padded = _pad(data, (tiles * oc_tile * ob, chunks * chunk * step * terms, kh, kw))
    axes = padded.reshape(tiles, oc_tile, ob, chunks, chunk, step, terms, kh, kw)
    return axes.transpose(0, 3, 4, 7, 8, 5, 1, 2, 6).reshape(shape)


def _conv2d_by_depth(data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return _conv2d(data, (shape[1], shape[0], *shape[2:])).swapaxes(0, 1)


def _pointwise(data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    tiles, blocks, ib, oc_tile, ob = shape
    return _conv2d(data, (tiles, 1, blocks, 1, 1, ib, oc_tile, ob)).reshape(shape)


def _filters(data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    blocks, channels, kh, kw, ob = shape
    padded = _pad(data, (blocks * ob, channels, kh, kw))
    return padded.reshape(blocks, ob, channels, kh, kw).transpose(0, 2, 3, 4, 1)


def _depthwise(data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    blocks, kh, kw, block = shape
    return _pad(data[:, 0], (blocks * block, kh, kw)).reshape(blocks, block, kh, kw).transpose(0, 2, 3, 1)


def _dense(data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    tiles, chunks, chunk, panel_tile, block, *four = shape
    terms = math.prod(four)
    padded = _pad(data, (chunks * chunk * terms, tiles * panel_tile * block))
    axes = padded.reshape(chunks, chunk, terms, tiles, panel_tile, block)
    return axes.transpose(3, 0, 1, 4, 5, 2).reshape(shape)


def _blocked(data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    n, blocks, h, w, block = shape
    full = data.reshape((1,) * (4 - data.ndim) + data.shape)
    return _pad(full, (n, blocks * block, h, w)).reshape(n, blocks, block, h, w).transpose(0, 1, 3, 4, 2)


def _winograd(transform: Transform) -> Callable[[np.ndarray, tuple[int, ...]], np.ndarray]:
    return lambda data, shape: transform_weights(data, transform, shape[-1])


def _im2col(data: np.ndarray, shape: tuple[int, ...], ib: int) -> np.ndarray:
    return pack_im2col(data, ib, ob=shape[3], oc_tile=shape[2])


def _indirect(data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return pack_indirect(data, ib=shape[3], ob=shape[5], oc_tile=shape[4])


def _windowed(data: np.ndarray, shape: tuple[int, ...], groups: int) -> np.ndarray:
    return pack_windowed(data, groups, shape[-1])


def _lanewise(data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return pack_lanewise(data, shape[-1])


def _depthwise_dot(data: np.ndarray, shape: tuple[int, ...], stride: int) -> np.ndarray:
    return pack_depthwise_dot(data, shape[4], stride)


def _transposed(data: np.ndarray, shape: tuple[int, ...], top: int, left: int) -> np.ndarray:
    return pack_transposed(data, (shape[0], shape[1]), (top, left), ib=shape[6], ob=shape[8], oc_tile=shape[7])


_PACKERS: Mapping[str, Callable[..., np.ndarray]] = {
    **{kind: _winograd(transform) for kind, transform in TRANSFORMS.items()},
    "winograd2_bytes": lambda data, shape: transform_bytes(data, shape[3]),
    "conv2d": _conv2d,
    "conv2d_by_depth": _conv2d_by_depth,
    "filters": _filters,
    "pointwise": _pointwise,
    "depthwise": _depthwise,
    "depthwise_dot": _depthwise_dot,
    "dense": _dense,
    "blocked": _blocked,
    "im2col": _im2col,
    "indirect": _indirect,
    "windowed": _windowed,
    "lanewise": _lanewise,
    "transposed": _transposed,
    "plain": lambda data, shape: data.reshape(shape),
}
