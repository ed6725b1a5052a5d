"""Weights as kernels read them: numpy in, numpy out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from evo_tvm.kernels.winograd import F4, transform_weights


@dataclass(frozen=True)
class Packing:
    """How a constant is laid out for a kernel, and the shape that it then has.

    conv2d: OIHW -> (O/ob, I/ib, H, W, ib, ob); depthwise: (C, 1, H, W) -> (C/b, H, W, b);
    winograd4: OIHW -> (36, O/ob, I, ob), transformed; dense: (K, N) -> (N/b, K, b);
    blocked: NCHW -> (N, C/b, H, W, b); plain: reshaped only.
    Channels are padded up to whole blocks with zeros.
    """

    kind: str
    shape: tuple[int, ...]

    def apply(self, data: np.ndarray) -> np.ndarray:
        """The packed copy of `data`, C-contiguous."""
        return np.ascontiguousarray(_PACKERS[self.kind](data, self.shape))


def _pad(data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if data.shape == shape:
        return data
    padded = np.zeros(shape, data.dtype)
    padded[tuple(slice(e) for e in data.shape)] = data
    return padded


def _conv2d(data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    oo, io, kh, kw, ib, ob = shape
    padded = _pad(data, (oo * ob, io * ib, kh, kw))
    return padded.reshape(oo, ob, io, ib, kh, kw).transpose(0, 2, 4, 5, 3, 1)


def _depthwise(data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    blocks, kh, kw, block = shape
    return _pad(data[:, 0], (blocks * block, kh, kw)).reshape(blocks, block, kh, kw).transpose(0, 2, 3, 1)


def _dense(data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    panels, depth, block = shape
    return _pad(data, (depth, panels * block)).reshape(depth, panels, block).transpose(1, 0, 2)


def _blocked(data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    n, blocks, h, w, block = shape
    full = data.reshape((1,) * (4 - data.ndim) + data.shape)
    return _pad(full, (n, blocks * block, h, w)).reshape(n, blocks, block, h, w).transpose(0, 1, 3, 4, 2)


_PACKERS: Mapping[str, Callable[[np.ndarray, tuple[int, ...]], np.ndarray]] = {
    "winograd4": lambda data, shape: transform_weights(data, F4, shape[3]),
    "conv2d": _conv2d,
    "depthwise": _depthwise,
    "dense": _dense,
    "blocked": _blocked,
    "plain": lambda data, shape: data.reshape(shape),
}
