"""Bytes as signed ones, for instructions that multiply signed bytes only: sum x w = sum (x - 128) w + 128 sum w."""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.ir import Expr

#: What is taken from an unsigned byte: its highest bit is turned over.
SHIFT = 128


def centred(x: Expr, signed: bool) -> Expr:
    """x - 128 as int8, of uint8 x, if `signed`; else x."""
    return tirx.reinterpret("int8", x ^ tirx.const(SHIFT, "uint8")) if signed else x


def lacking(weight: np.ndarray, channel_axis: int) -> np.ndarray:
    """What sums of x - 128 lack for each output channel: 128 sum w, int32 (modulo 2^32, as are the sums)."""
    others = tuple(axis for axis in range(weight.ndim) if axis != channel_axis)
    sums: np.ndarray = SHIFT * weight.sum(axis=others, dtype=np.int64)
    return sums.astype(np.int32)
