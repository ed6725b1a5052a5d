"""A step of dot products of bytes as data, and what the instruction sets' files (dot_x86.py, ...) share to lower it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import stmt as tir_stmt

#: Terms of a step by the dtype of A: bytes are multiplied and added up in fours, 16-bit numbers in pairs.
TERMS: Mapping[str, int] = {"uint8": 4, "int16": 2}


@dataclass(frozen=True)
class Dot:
    """C[c + v] += sum_q A[..] * B[b + terms * v + q] for v < count; A[a + q], or A[a + apart * q + v] if apart > 1.

    A are unsigned bytes and B signed ones, in fours, or both are int16, in pairs; C are int32. signed: of A - 128.
    """

    sums: Var
    left: Var
    right: Var
    c: Expr
    a: Expr
    b: Expr
    count: int
    apart: int
    signed: bool = False

    @property
    def terms(self) -> int:
        """Products in a step."""
        return TERMS[str(self.left.ty.dtype)]

    def load_sums(self, first: int, lanes: int) -> Expr:
        return tirx.BufferLoad(self.sums, [tirx.Ramp(self.c + first, 1, lanes)])

    def store_sums(self, first: int, lanes: int, value: Expr) -> tirx.Stmt:
        return tir_stmt.BufferStore(self.sums, value, [tirx.Ramp(self.c + first, 1, lanes)])

    def load_left(self, first: int, lanes: int) -> Expr:
        """The terms of A for each lane, as int32."""
        if self.apart == 1:
            four = tirx.BufferLoad(self.left, [tirx.Ramp(self.a, 1, self.terms)])
            return tirx.Broadcast(tirx.reinterpret("int32", four), lanes)
        if self.apart == lanes:
            terms = [tirx.BufferLoad(self.left, [tirx.Ramp(self.a, 1, self.terms * lanes)])]
        else:
            terms = [
                tirx.BufferLoad(self.left, [tirx.Ramp(self.left_at(first, q), 1, lanes)]) for q in range(self.terms)
            ]
        order = [q * lanes + v for v in range(lanes) for q in range(self.terms)]
        return tirx.reinterpret(f"int32x{lanes}", tirx.Shuffle(terms, [tirx.const(i, "int32") for i in order]))

    def left_at(self, first: int, q: int) -> Expr:
        """The place of term q of lane `first`."""
        return self.a + (q if self.apart == 1 else q * self.apart + first)

    def load_right(self, first: int, lanes: int) -> Expr:
        return tirx.BufferLoad(self.right, [tirx.Ramp(self.b + self.terms * first, 1, self.terms * lanes)])


#: (step, sums so far, first lane, lanes) -> the sums of these lanes
Product = Callable[[Dot, Expr, int, int], Expr]


def in_vectors(dot: Dot, widths: Sequence[int], product: Product) -> tirx.Stmt:
    """The step in vectors of the first of `widths` that divides it; one vector of all lanes where none does."""
    lanes = next((width for width in widths if dot.count % width == 0), dot.count)
    steps = []
    for first in range(0, dot.count, lanes):
        value = product(dot, dot.load_sums(first, lanes), first, lanes)
        steps.append(dot.store_sums(first, lanes, value))
    return steps[0] if len(steps) == 1 else tir_stmt.SeqStmt(steps)


def plain_product(dot: Dot, sums: Expr, first: int, lanes: int) -> Expr:
    """Products in 32 bits, for any target."""
    for q in range(dot.terms):
        place = dot.left_at(first, q)
        if dot.apart == 1:
            left = tirx.Broadcast(tirx.BufferLoad(dot.left, [place]).astype("int32"), lanes)
        else:
            left = tirx.BufferLoad(dot.left, [tirx.Ramp(place, 1, lanes)]).astype(f"int32x{lanes}")
        right = tirx.BufferLoad(dot.right, [tirx.Ramp(dot.b + dot.terms * first + q, dot.terms, lanes)])
        sums = sums + left * right.astype(f"int32x{lanes}")
    return sums
