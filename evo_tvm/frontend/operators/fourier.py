"""DFT and STFT => matrix products with constant cosines and sines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from evo_tvm.frontend.operators.builder import (
    Builder,
    CannotRewrite,
    Rewrite,
    attribute,
    constant,
    known_dtype,
    operand,
    required,
    static_shape,
)


def _dft(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """The discrete Fourier transform of [..., n, ..., 1 or 2] (real, or real and imaginary) along one axis."""
    x = required(node, 0)
    rank = len(static_shape(x))
    if op.opset >= 20:
        given = constant(operand(node, 2))
        if given is None and operand(node, 2) is not None:
            raise CannotRewrite("its axis is not known")
        axis = -2 if given is None else int(given.reshape(-1)[0])
    else:
        axis = attribute(node, "axis", 1)
    axis %= rank
    length = constant(operand(node, 1))
    if length is None and operand(node, 1) is not None:
        raise CannotRewrite("its length is not known")
    size = static_shape(x)[axis]
    inverse, onesided = bool(attribute(node, "inverse", 0)), bool(attribute(node, "onesided", 0))
    whole = 2 * (size - 1) if inverse and onesided else size
    count = whole if length is None else int(length.reshape(-1)[0])
    order = [at for at in range(rank - 1) if at != axis]
    moved = op.op("Transpose", x, perm=[rank - 1, *order, axis])
    used = min(size, count)
    parts = [op.op("Gather", moved, op.const(part, np.int64), axis=0) for part in range(static_shape(x)[-1])]
    if used < size:
        parts = [op.slice(part, rank - 2, 0, used) for part in parts]
    if inverse and onesided:
        parts = _mirrored(op, parts, rank - 2, used, count)
        used = count
    kept = count // 2 + 1 if onesided and not inverse else count
    # Sums that cancel to nearly 0 are what a transform is about: float64 keeps them as small as an FFT would.
    parts = [op.cast(part, ir.DataType.DOUBLE) for part in parts]
    real, imaginary = _transform(op, parts, used, count, kept, inverse, ir.DataType.DOUBLE)
    outputs = [op.op("Cast", part, to=int(known_dtype(x))) for part in (real, imaginary)]
    outputs = outputs[:1] if onesided and inverse else outputs
    stacked = op.op("Concat", *(op.shape_op("Unsqueeze", part, [0]) for part in outputs), axis=0)
    back = [0] * rank
    for at, place in enumerate([rank - 1, *order, axis]):
        back[place] = at
    return [op.op("Transpose", stacked, perm=back)]


def _mirrored(op: Builder, parts: Sequence[ir.Value], axis: int, used: int, count: int) -> list[ir.Value]:
    """Return the whole spectrum of a real signal of `count` samples from its first `used` numbers."""
    places = np.arange(count)
    source = op.const(np.where(places < used, places, count - places), np.int64)
    sign = op.const(np.where(places < used, 1.0, -1.0), known_dtype(op.node.inputs[0]))
    whole = [op.op("Gather", part, source, axis=axis) for part in parts]
    return [whole[0], *(op.op("Mul", part, sign) for part in whole[1:])]


def _transform(
    op: Builder, parts: Sequence[ir.Value], used: int, count: int, kept: int, inverse: bool, dtype: ir.DataType
) -> tuple[ir.Value, ir.Value]:
    """Return real and imaginary part of the transform of `parts` [..., used], each [..., kept]."""
    # Reducing the exponent modulo `count` keeps the cosines exact where they should be 0 or 1.
    angles = 2 * np.pi * (np.outer(np.arange(used), np.arange(kept)) % count) / count
    scale = 1 / count if inverse else 1.0
    cosine = op.const(np.cos(angles) * scale, dtype)
    sine = op.const((np.sin(angles) if inverse else -np.sin(angles)) * scale, dtype)
    real, imaginary = op.op("MatMul", parts[0], cosine), op.op("MatMul", parts[0], sine)
    if len(parts) == 1:
        return real, imaginary
    return (
        op.op("Sub", real, op.op("MatMul", parts[1], sine)),
        op.op("Add", imaginary, op.op("MatMul", parts[1], cosine)),
    )


def _stft(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """Transforms of overlapping frames: signal [N, n, 1] => [N, frames, frame_length/2+1 or frame_length, 2]."""
    signal, step, window, length = required(node, 0), constant(operand(node, 1)), operand(node, 2), operand(node, 3)
    _, samples, components = static_shape(signal)
    size = int(np.reshape(known, -1)[0]) if (known := constant(length)) is not None else None
    size = static_shape(window)[0] if size is None and window is not None else size
    if step is None or size is None:
        raise CannotRewrite("the sizes of its frames are not known")
    starts = np.arange(0, samples - size + 1, int(step.reshape(-1)[0]))
    places = op.const(starts[:, None] + np.arange(size)[None, :], np.int64)
    onesided = bool(attribute(node, "onesided", 1))
    parts = []
    for component in range(components):
        row = op.op("Gather", signal, op.const(component, np.int64), axis=2)
        frames = op.op("Gather", row, places, axis=1)
        parts.append(frames if window is None else op.op("Mul", frames, window))
    kept = size // 2 + 1 if onesided else size
    results = _transform(op, parts, size, size, kept, False, known_dtype(signal))
    return [op.op("Concat", *(op.shape_op("Unsqueeze", part, [3]) for part in results), axis=3)]


REWRITES: dict[tuple[str, str], Rewrite] = {("", "DFT"): _dft, ("", "STFT"): _stft}
