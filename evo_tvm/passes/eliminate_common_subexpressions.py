"""a = f(x); b = f(x) => a = f(x); b = a.

Operands are compared by identity, attributes by structure, and constants by value: small ones by their bytes, large
ones by a sample of them and, only where the samples agree, in full. TVM's EliminateCommonSubexpr compares constants by
identity, so that equal weights read twice from a file keep the calls on them apart.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import tvm_ffi
from tvm import relax
from tvm.ir import Call, Expr, GenericConst

from evo_tvm.passes._rewrite import Graph, Rule, rewriting_pass
from evo_tvm.passes._values import Array, array_of

_SAMPLES = 64


class _Reuse(Rule[relax.Var]):
    """Remembers the calls of the walk so far: the first of equal ones is left alone, the others become its variable."""

    def start(self) -> None:
        self._seen: dict[Hashable, relax.Var] = {}
        self._constants: dict[Hashable, list[tuple[Array, int]]] = {}
        self._kept: list[object] = []  # keys hold addresses: what they point at must stay alive

    def match(self, graph: Graph, value: Expr) -> relax.Var | None:
        if not isinstance(value, Call | relax.TupleGetItem):
            return None
        key = (graph.block, self._key(value))
        first = self._seen.get(key)
        if first is None:
            self._seen[key] = graph.root
            self._kept.append(value)
        return first

    def rewrite(self, graph: Graph, found: relax.Var) -> Expr:
        return found

    def _key(self, expr: Expr) -> Hashable:
        if isinstance(expr, relax.Var):
            return hash(expr)
        if isinstance(expr, GenericConst):
            return ("constant", self._constant(expr))
        if isinstance(expr, relax.TupleGetItem):
            return ("item", self._key(expr.tuple_value), int(expr.index))
        if isinstance(expr, relax.Tuple):
            return ("tuple", *(self._key(field) for field in expr.fields))
        if isinstance(expr, Call):
            attrs = None if expr.attrs is None else _structure(expr.attrs)
            types = tuple(_structure(ty) for ty in expr.ty_args)
            return (hash(expr.op), attrs, types, *(self._key(arg) for arg in expr.args))
        return ("other", _structure(expr))

    def _constant(self, expr: Expr) -> int:
        """A number that equal constants share."""
        array = array_of(expr)
        if array is None:
            return hash(expr)
        flat = array.reshape(-1)
        step = max(1, flat.size // _SAMPLES)
        alike = self._constants.setdefault((array.shape, str(array.dtype), flat[::step].tobytes()), [])
        for other, number in alike:
            if other.ctypes.data == flat.ctypes.data or np.array_equal(other.view(np.uint8), flat.view(np.uint8)):
                return number
        alike.append((flat, hash(expr)))
        self._kept.append(expr)
        return hash(expr)


def _structure(value: object) -> Hashable:
    return int(tvm_ffi.structural_hash(value))  # 64 bits: two different attributes of one operator do not meet


eliminate_common_subexpressions = rewriting_pass("eliminate_common_subexpressions", lambda: [_Reuse()])
