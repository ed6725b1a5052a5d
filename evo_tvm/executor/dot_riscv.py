"""Dot products of bytes and of 16-bit numbers on RISC-V with V.

Products of 16 bits are added up in 32 by one instruction, vwmacc, of a vector and a number or of two vectors: exact,
where sums of products in 16 bits (vwmaccsu of bytes) would not fit. The terms of a lane of B lie side by side: read as
numbers of 32 bits they are taken apart by shifts, once for all pixels.
"""

from __future__ import annotations

from collections.abc import Set

from tvm import tirx
from tvm.ir import Expr

from evo_tvm.executor.dot import Dot, in_vectors, plain_product


def emit(dot: Dot, features: Set[str]) -> tirx.Stmt:
    """The step, all lanes in one vector: a block of channels fills one, and fewer do not. features: LLVM's names."""
    if "v" not in features or dot.signed:
        return in_vectors(dot, (4,), plain_product)
    return in_vectors(dot, (dot.count,), _vwmacc)


def _vwmacc(dot: Dot, sums: Expr, first: int, lanes: int) -> Expr:
    for q, right in enumerate(_terms(dot, first, lanes)):
        place = dot.left_at(first, q)
        if dot.apart == 1:
            # The mask, which does nothing, keeps TVM from widening the vector instead of the number.
            number, mask = tirx.BufferLoad(dot.left, [place]).astype("int32"), tirx.const(255, "int32")
            left = tirx.Broadcast(number & mask if dot.terms == 4 else number, lanes)
        else:
            left = tirx.BufferLoad(dot.left, [tirx.Ramp(place, 1, lanes)]).astype(f"int32x{lanes}")
        sums = sums + right.astype(f"int32x{lanes}") * left
    return sums


def _terms(dot: Dot, first: int, lanes: int) -> list[Expr]:
    """Term by term, the lanes of B."""
    whole = dot.load_right(first, lanes)
    return [
        tirx.Shuffle([whole], [tirx.const(dot.terms * v + q, "int32") for v in range(lanes)]) for q in range(dot.terms)
    ]
