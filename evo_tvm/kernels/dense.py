"""Matrix products with weights packed into panels of output channels."""

from __future__ import annotations

from tvm import te

#: Terms added up in one accumulator before the sum is put aside. Blocked summation keeps the rounding error of a
#: 25,088-term dot product near that of a 512-term one (Higham, "The Accuracy of Floating Point Summation", 1993).
CHUNK = 512


def dense(data: te.Tensor, weight: te.Tensor) -> te.Tensor:
    """data: (M, K); weight: (N/b, K, b), N padded up to whole panels; result: (M, N/b, b).

    The stages are "partial" (M, N/b, chunks, b), sums over a chunk of the depth, and "dense", their sum.
    """
    m, depth = (int(e) for e in data.shape)
    panels, _, block = (int(e) for e in weight.shape)
    chunk = next(c for c in range(min(depth, CHUNK), 0, -1) if depth % c == 0)
    chunk = chunk if chunk >= CHUNK // 8 else depth
    ki, ko = te.reduce_axis((0, chunk), "ki"), te.reduce_axis((0, depth // chunk), "ko")
    partial = te.compute(
        (m, panels, depth // chunk, block),
        lambda i, o, c, v: te.sum(data[i, c * chunk + ki] * weight[o, c * chunk + ki, v], axis=[ki]),
        name="partial",
    )
    return te.compute((m, panels, block), lambda i, o, v: te.sum(partial[i, o, ko, v], axis=[ko]), name="dense")
