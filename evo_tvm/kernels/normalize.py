"""Softmax and layer norm over the last axis, row by row.

A row is seen as vectors side by side; where they do not fill it the last one begins earlier, inside the one before.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import te, tirx
from tvm.ir import Expr


def softmax(data: te.Tensor, lanes: int) -> te.Tensor:
    """e^x over its sum along the last axis, of x less its largest; data and result: (*rows, length)."""
    row = _Row(data, lanes)
    top = row.reduce("top", row.of(data), te.max)
    power = te.compute(
        (*row.rows, row.vectors, row.lanes),
        lambda *at: tirx.exp(data[(*at[:-2], row.start(at[-2]) + at[-1])] - top[at[:-2]]),
        name="power",
    )
    total = row.reduce("total", lambda *at: power[at], te.sum)
    one = tirx.const(1, "float32")
    scale = te.compute(row.rows, lambda *at: one / total[at], name="scale")

    def normal(*at: Expr) -> Expr:
        vector, lane = at[-1] // row.lanes, at[-1] % row.lanes
        shift = vector * row.lanes - row.start(vector) if row.overlap else 0
        return power[(*at[:-1], vector, lane + shift)] * scale[at[:-1]]

    return te.compute(data.shape, normal, name="normal")


def layer_norm(data: te.Tensor, gamma: te.Tensor, beta: te.Tensor, *, epsilon: float, lanes: int) -> te.Tensor:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta along the last axis (Ba et al., 2016).

    data and result: (*rows, length); gamma, beta: (length,). The variance is that of the differences from the mean.
    """
    row = _Row(data, lanes)
    part = tirx.const(1.0 / row.length, "float32")
    total = row.reduce("total", row.of(data), te.sum)
    mean = te.compute(row.rows, lambda *at: total[at] * part, name="mean")

    def square(*at: Expr) -> Expr:
        difference = row.of(data)(*at) - mean[at[:-2]]
        return difference * difference

    squares = row.reduce("squares", square, te.sum)
    one, small = tirx.const(1, "float32"), tirx.const(epsilon, "float32")
    scale = te.compute(row.rows, lambda *at: one / tirx.sqrt(squares[at] * part + small), name="scale")
    return te.compute(
        data.shape,
        lambda *at: (data[at] - mean[at[:-1]]) * scale[at[:-1]] * gamma[at[-1]] + beta[at[-1]],
        name="normal",
    )


class _Row:
    """The last axis of a tensor as `vectors` of `lanes` elements, of which the last two share `overlap`."""

    def __init__(self, data: te.Tensor, lanes: int) -> None:
        *self.rows, self.length = (int(e) for e in data.shape)
        self.lanes = lanes
        while self.lanes > self.length:
            self.lanes //= 2
        self.vectors = -(-self.length // self.lanes)
        self.overlap = self.vectors * self.lanes - self.length

    def start(self, vector: Expr) -> Expr:
        """Where a vector begins in the row."""
        first = vector * self.lanes
        return tirx.min(first, self.length - self.lanes) if self.overlap else first

    def of(self, data: te.Tensor) -> Callable[..., Expr]:
        """The row's elements by vector and lane."""
        return lambda *at: data[(*at[:-2], self.start(at[-2]) + at[-1])]

    def reduce(self, name: str, element: Callable[..., Expr], reduce: Callable[..., Expr]) -> te.Tensor:
        """(*rows): in each lane over all vectors, then in halves of the lanes until one is left."""
        k = te.reduce_axis((0, self.vectors), "k")

        def lane(*at: Expr) -> Expr:
            found = element(*at[:-1], k, at[-1])
            if self.overlap and reduce is te.sum:  # an element that two vectors share counts once
                own = self.start(k) + at[-1] >= k * self.lanes
                found = tirx.Select(own, found, tirx.const(0, "float32"))
            return reduce(found, axis=[k])

        stage, lanes = te.compute((*self.rows, self.lanes), lane, name=f"{name}_lanes"), self.lanes
        join = tirx.max if reduce is te.max else lambda a, b: a + b
        while lanes > 1:
            lanes //= 2
            stage = _halved(stage, lanes, join, name)
        return te.compute(self.rows, lambda *at: stage[(*at, 0)], name=name)


def _halved(stage: te.Tensor, lanes: int, join: Callable[[Expr, Expr], Expr], name: str) -> te.Tensor:
    return te.compute(
        (*stage.shape[:-1], lanes),
        lambda *at: join(stage[at], stage[(*at[:-1], at[-1] + lanes)]),
        name=f"{name}_{lanes}",
    )
