"""Winograd convolution F(m x m, 3 x 3): fewer multiplications by working on transformed tiles.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016). Each m x m tile of output comes from an
(m+2) x (m+2) tile of input: transformed (B^T d B), multiplied channel by channel with transformed weights (G g G^T,
done ahead), summed over channels, and transformed back (A^T M A).

F(2 x 2, 3 x 3) is exact in integers once G is doubled: bytes become 16 bits, their products 32, and the result is four
times the sum. As in Meng & Brothers, "Efficient Winograd Convolution via Integer Arithmetic" (2019), but with no error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from tvm import te, tirx
from tvm.ir import Expr


@dataclass(frozen=True)
class Transform:
    """The matrices B^T, G and A^T of F(m x m, 3 x 3)."""

    m: int
    bt: tuple[tuple[float, ...], ...]
    g: tuple[tuple[float, ...], ...]
    at: tuple[tuple[float, ...], ...]


def cook_toom(m: int, points: Sequence[Fraction]) -> Transform:
    """F(m, 3) from m + 1 interpolation points and infinity (Lagrange's form of the Cook-Toom algorithm)."""
    n = len(points) + 1

    def product(roots: list[Fraction]) -> list[Fraction]:
        """Coefficients of (x - r1)(x - r2)..., lowest first."""
        result = [Fraction(1)]
        for root in roots:
            shifted, scaled = [Fraction(0), *result], [*(root * c for c in result), Fraction(0)]
            result = [a - b for a, b in zip(shifted, scaled, strict=True)]
        return result

    others = [[q for q in points if q != p] for p in points]
    at = [[p**i for p in points] + [Fraction(i == m - 1)] for i in range(m)]
    g = [[p**j / math.prod(p - q for q in rest) for j in range(3)] for p, rest in zip(points, others, strict=True)]
    bt = [[*product(rest), Fraction(0)] for rest in others] + [product(list(points))]

    def floats(matrix: Sequence[Sequence[Fraction]]) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(float(e) for e in row) for row in matrix)

    assert len(bt) == n
    return Transform(m, floats(bt), floats([*g, [Fraction(0), Fraction(0), Fraction(1)]]), floats(at))


#: F(2 x 2, 3 x 3).
F2 = cook_toom(2, [Fraction(0), Fraction(1), Fraction(-1)])

#: F(4 x 4, 3 x 3). The usual points 0, +-1, +-2 make rounding errors four times as large as these do (Barabasz et al.,
#: "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks", 2018, on such choices).
F4 = cook_toom(4, [Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2)])


#: The order of the axes of transformed weights, which this line alone decides: the order in which they are read. o: the
#: output channels of a register tile; e: element of a transformed tile, row by row; i: input channel; v: channel within
#: the register tile, which stays the last.
WEIGHT_AXES = "oeiv"


#: Terms that 16-bit instructions multiply and add up at once.
PAIR = 2

#: Most input channels of bytes: no number on the way back exceeds 32 bits, be all of them as large as they can.
MOST_CHANNELS_OF_BYTES = (1 << 31) // (2 * 3 * 510 * 3 * 128)


def pair_shape(oc: int, ic: int, ob: int) -> tuple[int, ...]:
    """The shape of what `transform_bytes` gives."""
    *outer, channels, lanes = transformed_shape(oc, ic, F2, ob)
    return (*outer, channels // PAIR, lanes, PAIR)


def transform_bytes(weight: np.ndarray, ob: int) -> np.ndarray:
    """(2 G) g (2 G)^T of F2, exact. weight: (OC, IC, 3, 3), int8; result: int16, (OC/ob, 16, IC/2, ob, 2)."""
    assert WEIGHT_AXES == "oeiv"
    oc, ic = weight.shape[:2]
    tiles = 4 * transform_weights(weight.astype(np.float64), F2, ob)
    pairs = tiles.reshape(oc // ob, -1, ic // PAIR, PAIR, ob).swapaxes(-1, -2)
    return np.ascontiguousarray(pairs, np.int16)


def transformed_shape(oc: int, ic: int, transform: Transform, ob: int) -> tuple[int, ...]:
    """The shape of what `transform_weights` gives."""
    extents = {"e": (transform.m + 2) ** 2, "o": oc // ob, "i": ic, "v": ob}
    return tuple(extents[axis] for axis in WEIGHT_AXES)


def transform_weights(weight: np.ndarray, transform: Transform, ob: int) -> np.ndarray:
    """G g G^T. weight: (OC, IC, 3, 3), OC whole blocks; result: axes WEIGHT_AXES, contiguous. In float64 within."""
    g = np.array(transform.g)
    oc, ic = weight.shape[:2]
    u = np.einsum("ak,oikl,bl->aboi", g, weight.astype(np.float64), g, optimize=True)
    tiles = u.reshape(len(g) ** 2, oc // ob, ob, ic)
    return np.ascontiguousarray(np.einsum(f"eovi->{WEIGHT_AXES}", tiles), weight.dtype)


def winograd_conv2d(
    data: te.Tensor, weight: te.Tensor, out_size: tuple[int, int], transform: Transform, ob: int
) -> te.Tensor:
    """3x3 convolution, stride 1, of `data`, whose shape reaches as far as whole tiles do; `ob` lanes in a result block.

    data: (N, IC/b, ceil(OH/m)*m + 2, ceil(OW/m)*m + 2, b); weight: as `transform_weights` gives; result, stage "conv":
    (N, OC/b, OH, OW, b). Before it the stages "columns" and "input" (the input's transform), "product" and "rows".

    Of uint8, and weights as `transform_bytes` gives, the result is int32.
    """
    m, size = transform.m, transform.m + 2
    n, ic_blocks, _, _, ib = (int(e) for e in data.shape)
    oc_tiles, _, channels, width, *pair = (int(e) for e in weight.shape)
    terms, word, dtype = (PAIR, "int16", "int32") if pair else (1, str(data.dtype), str(data.dtype))
    oc_tile = width // ob
    oc_blocks = oc_tiles * oc_tile
    down, across = -(-out_size[0] // m), -(-out_size[1] // m)
    columns = te.compute(
        (n, ic_blocks, down, across, size, size, ib),
        lambda b, c, y, x, e, j, v: _combine(
            transform.bt, e, lambda k: data[b, c, y * m + k, x * m + j, v].astype(word)
        ),
        name="columns",
    )
    transformed = te.compute(
        (n, size, size, ic_blocks, down, across, ib),
        lambda b, e, f, c, y, x, v: _combine(transform.bt, f, lambda k: columns[b, c, y, x, e, k, v]),
        name="input",
    )
    k, q = te.reduce_axis((0, channels), "k"), [te.reduce_axis((0, PAIR), "q")] if pair else []

    def channel() -> Expr:
        return k * terms + q[0] if pair else k

    product = te.compute(
        (n, oc_blocks, size, size, down, across, ob),
        lambda b, o, e, f, y, x, v: te.sum(
            transformed[b, e, f, channel() // ib, y, x, channel() % ib].astype(dtype)
            * weight[(o // oc_tile, e * size + f, k, o % oc_tile * ob + v, *q)].astype(dtype),
            axis=[k, *q],
        ),
        name="product",
    )
    rows = te.compute(
        (n, oc_blocks, down, across, m, size, ob),
        lambda b, o, y, x, i, f, v: _combine(transform.at, i, lambda e: product[b, o, e, f, y, x, v]),
        name="rows",
    )

    def result(b: Expr, o: Expr, h: Expr, w: Expr, v: Expr) -> Expr:
        whole = _combine(transform.at, w % m, lambda f: rows[b, o, h // m, w // m, h % m, f, v])
        return whole >> 2 if pair else whole

    return te.compute((n, oc_blocks, *out_size, ob), result, name="conv")


def _combine(matrix: Sequence[Sequence[float]], row: Expr, term: Callable[[int], Expr]) -> Expr:
    """sum over k of matrix[row][k] * term(k); `row` is a loop that the schedule unrolls, so one case remains."""
    cases = [_linear(coefficients, term) for coefficients in matrix]
    result = cases[-1]
    for i in range(len(cases) - 2, -1, -1):
        result = tirx.Select(row == i, cases[i], result)
    return result


def _linear(coefficients: Sequence[float], term: Callable[[int], Expr]) -> Expr:
    total: Expr | None = None
    for k, c in enumerate(coefficients):
        if c == 0:
            continue
        part = term(k) if abs(c) == 1 else term(k) * tirx.const(abs(c), "float32")
        if total is None:
            total = part if c > 0 else -part
        else:
            total = total + part if c > 0 else total - part
    assert total is not None
    return total
