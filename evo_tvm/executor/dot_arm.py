"""Dot products of bytes and of 16-bit numbers on AArch64.

    i8mm            usdot: four products of an unsigned and a signed byte and their sum with the accumulator, in one
    dotprod         sdot: the same of signed bytes. The kernel takes bytes less 128, their highest bits turned over
    NEON            smlal: products of 16 bits in 32, term by term; bytes are widened first

All take the terms of A as lanes of a vector ("by element"), see `share_loads`.
"""

from __future__ import annotations

from collections.abc import Set

from tvm import tirx
from tvm.ir import Expr
from tvm.target.codegen import llvm_lookup_intrinsic_id

from evo_tvm.executor.dot import Dot, in_vectors

#: int32 lanes of a vector.
_LANES = 4
#: The highest bits of four bytes, as an int32.
_HIGHEST_BITS = 0x80808080 - (1 << 32)


def emit(dot: Dot, features: Set[str]) -> tirx.Stmt:
    """The step in vectors of four sums. features: LLVM's names."""
    if dot.signed:
        return in_vectors(dot, (_LANES,), _sdot)
    bytes_ = str(dot.left.ty.dtype) == "uint8"
    return in_vectors(dot, (_LANES,), _usdot if bytes_ and "i8mm" in features else _smlal)


def _sdot(dot: Dot, sums: Expr, first: int, lanes: int) -> Expr:
    left, bits = dot.load_left(first, lanes), tirx.const(_HIGHEST_BITS, "int32")
    if isinstance(left, tirx.Broadcast):
        left = tirx.Broadcast(left.value ^ bits, lanes)
    else:
        left = left ^ tirx.Broadcast(bits, lanes)
    return _instruction("sdot", sums, dot.load_right(first, lanes), left, lanes)


def _usdot(dot: Dot, sums: Expr, first: int, lanes: int) -> Expr:
    return _instruction("usdot", sums, dot.load_left(first, lanes), dot.load_right(first, lanes), lanes)


def _instruction(name: str, sums: Expr, left: Expr, right: Expr, lanes: int) -> Expr:
    number = llvm_lookup_intrinsic_id(f"llvm.aarch64.neon.{name}")
    left, right = (tirx.reinterpret(f"int8x{4 * lanes}", terms) for terms in (left, right))
    return tirx.call_llvm_pure_intrin(f"int32x{lanes}", number, sums, left, right)


def _smlal(dot: Dot, sums: Expr, first: int, lanes: int) -> Expr:
    """Term by term: those of a lane lie side by side."""
    terms, words = dot.terms, f"int16x{dot.terms * lanes}"
    dtype = str(dot.left.ty.dtype)
    left = tirx.reinterpret(f"{dtype}x{terms * lanes}", dot.load_left(first, lanes)).astype(words)
    right = dot.load_right(first, lanes).astype(words)
    number = llvm_lookup_intrinsic_id("llvm.aarch64.neon.smull")
    for q in range(terms):
        places = [tirx.const(terms * v + q, "int32") for v in range(lanes)]
        a, b = (tirx.Shuffle([some], places) for some in (left, right))
        sums = sums + tirx.call_llvm_pure_intrin(f"int32x{lanes}", number, a, b)
    return sums
