"""Pooling over channel-blocked tensors; an NCHW tensor is the case of one channel a block."""

from __future__ import annotations

from tvm import te, tirx
from tvm.ir import Expr


def pool2d(
    data: te.Tensor,
    kind: str,
    pool_size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    out_size: tuple[int, int],
    count_include_pad: bool,
) -> te.Tensor:
    """Maximum ("max_pool2d") or average ("avg_pool2d") over windows.

    data: (N, C/b, H, W, b); `padding` is (top, left, bottom, right); result: (N, C/b, *out_size, b). Windows may reach
    beyond the padding (ceil mode). The average divides by the pixels of the window that lie in the image, or with
    `count_include_pad` in the image and its padding.
    """
    n, blocks, height, width, block = (int(e) for e in data.shape)
    top, left, bottom, right = padding
    r, s = te.reduce_axis((0, pool_size[0]), "r"), te.reduce_axis((0, pool_size[1]), "s")
    out_h, out_w = out_size
    inside = (
        (out_h - 1) * stride[0] + (pool_size[0] - 1) * dilation[0] < height
        and (out_w - 1) * stride[1] + (pool_size[1] - 1) * dilation[1] < width
        and top == left == 0
    )
    is_max = kind == "max_pool2d"
    dtype = str(data.dtype) if is_max else "float32"
    empty = tirx.min_value(dtype) if is_max else tirx.const(0.0, dtype)

    def tap(b, c, i, j, v):  # type: ignore[no-untyped-def]
        y, x = i * stride[0] + r * dilation[0] - top, j * stride[1] + s * dilation[1] - left
        pixel = data[b, c, y, x, v].astype(dtype)
        if not inside:
            pixel = tirx.if_then_else(tirx.all(y >= 0, y < height, x >= 0, x < width), pixel, empty)
        return te.max(pixel, axis=[r, s]) if is_max else te.sum(pixel, axis=[r, s])

    pooled = te.compute((n, blocks, out_h, out_w, block), tap, name="pool")
    if is_max:
        return pooled
    extra = (bottom, right) if count_include_pad else (0, 0)
    before = (top, left) if count_include_pad else (0, 0)

    def count(i: Expr, axis: int) -> Expr:
        """Pixels that a window divides by along one axis."""
        first = i * stride[axis] - padding[axis]
        last = first + (pool_size[axis] - 1) * dilation[axis]
        size = (height, width)[axis]
        if inside:
            return tirx.const(pool_size[axis], "int32")
        if dilation[axis] == 1:
            low = tirx.max(first, -before[axis])
            return tirx.min(last, size + extra[axis] - 1) - low + 1
        taps = [first + k * dilation[axis] for k in range(pool_size[axis])]
        return sum(
            tirx.Select(
                tirx.all(t >= -before[axis], t < size + extra[axis]), tirx.const(1, "int32"), tirx.const(0, "int32")
            )
            for t in taps
        )

    return te.compute(
        pooled.shape,
        lambda b, c, i, j, v: pooled[b, c, i, j, v] / (count(i, 0) * count(j, 1)).astype("float32"),
        name="average",
    )


def global_avg_pool2d(data: te.Tensor) -> te.Tensor:
    """Mean over H and W. data: (N, C/b, H, W, b); result: (N, C/b, b), a sum: the caller scales it."""
    n, blocks, height, width, block = (int(e) for e in data.shape)
    r, s = te.reduce_axis((0, height), "r"), te.reduce_axis((0, width), "s")
    return te.compute(
        (n, blocks, block), lambda b, c, v: te.sum(data[b, c, r, s, v].astype("float32"), axis=[r, s]), name="pool"
    )
