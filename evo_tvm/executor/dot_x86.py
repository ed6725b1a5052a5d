"""Dot products of bytes on x86.

AVX-512 VNNI, AVX-VNNI      vpdpbusd: four products and their sum with the accumulator, in one
SSE2, AVX2, AVX-512         vpmaddwd on bytes widened to 16 bits, twice. The shorter way, vpmaddubsw, adds pairs of
                            products in 16 bits and saturates: 255 * 127 * 2 does not fit, so it is not taken.

Of 16-bit numbers: vpdpwssd, or vpmaddwd and an addition.
"""

from __future__ import annotations

from collections.abc import Set
from functools import partial

from tvm import tirx
from tvm.ir import Expr
from tvm.target.codegen import llvm_lookup_intrinsic_id

from evo_tvm.executor.dot import Dot, in_vectors, plain_product

#: The instruction that multiplies 16 bits and adds up pairs of products, by the int32 lanes of its result.
_PAIRS = {16: "llvm.x86.avx512.pmaddw.d.512", 8: "llvm.x86.avx2.pmadd.wd", 4: "llvm.x86.sse2.pmadd.wd"}


def emit(dot: Dot, features: Set[str]) -> tirx.Stmt:
    """The step in the widest vectors that fit. features: LLVM's names."""
    widths = [w for w, wanted in ((16, "avx512bw"), (8, "avx2"), (4, "")) if not wanted or wanted in features]
    return in_vectors(dot, widths, partial(_product, features))


def _product(features: Set[str], dot: Dot, sums: Expr, first: int, lanes: int) -> Expr:
    instruction = _vnni("vpdpbusd" if dot.terms == 4 else "vpdpwssd", features, lanes)
    if instruction:
        return _dot_product(instruction, dot, sums, first, lanes)
    if lanes not in _PAIRS:
        return plain_product(dot, sums, first, lanes)
    return (_widened if dot.terms == 4 else _in_pairs)(dot, sums, first, lanes)


def _vnni(instruction: str, features: Set[str], lanes: int) -> str | None:
    name = f"llvm.x86.avx512.{instruction}.{32 * lanes}"
    if lanes == 16:
        return name if "avx512vnni" in features else None
    return name if "avxvnni" in features or {"avx512vnni", "avx512vl"} <= features else None


def _dot_product(instruction: str, dot: Dot, sums: Expr, first: int, lanes: int) -> Expr:
    number = llvm_lookup_intrinsic_id(instruction)
    operand = f"int8x{4 * lanes}" if dot.terms == 4 else f"int16x{2 * lanes}"
    left = tirx.reinterpret(operand, dot.load_left(first, lanes))
    return tirx.call_llvm_pure_intrin(f"int32x{lanes}", number, sums, left, dot.load_right(first, lanes))


def _in_pairs(dot: Dot, sums: Expr, first: int, lanes: int) -> Expr:
    number = llvm_lookup_intrinsic_id(_PAIRS[lanes])
    left = tirx.reinterpret(f"int16x{2 * lanes}", dot.load_left(first, lanes))
    return sums + tirx.call_llvm_pure_intrin(f"int32x{lanes}", number, left, dot.load_right(first, lanes))


def _widened(dot: Dot, sums: Expr, first: int, lanes: int) -> Expr:
    """Bytes 0, 2 and 1, 3 of each four as 16 bits: those of A by a mask and a shift, those of B by shifts."""
    number = llvm_lookup_intrinsic_id(_PAIRS[lanes])
    words = f"int16x{2 * lanes}"
    left = tirx.reinterpret(f"uint16x{2 * lanes}", dot.load_left(first, lanes))
    right = tirx.reinterpret(words, dot.load_right(first, lanes))

    def of(value: int, dtype: str) -> Expr:
        return tirx.Broadcast(tirx.const(value, dtype), 2 * lanes)

    even = tirx.reinterpret(words, left & of(255, "uint16")), (right << of(8, "int16")) >> of(8, "int16")
    odd = tirx.reinterpret(words, left >> of(8, "uint16")), right >> of(8, "int16")
    for pair in (even, odd):
        sums = sums + tirx.call_llvm_pure_intrin(f"int32x{lanes}", number, *pair)
    return sums
