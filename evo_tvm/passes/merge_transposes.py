"""transpose(x) => reshape(transpose(reshape(x))) over as few axes as there can be; then transposes in a row meet.

Axes of size one are dropped and axes that stay side by side become one. So the transposes of queries and keys, which
reshapes keep apart, become one each, and every transpose that is left is of the smallest rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from tvm import relax
from tvm.ir import Expr

from evo_tvm.passes._rewrite import Graph, Rule, rewriting_pass
from evo_tvm.passes._values import shape_of
from evo_tvm.passes.cancel_pairs import Reshapes, Transposes, transpose_axes


@dataclass(frozen=True)
class _Merged:
    data: Expr
    shape: list[int]  # of the axes that are left
    axes: list[int]
    result: tuple[int, ...]


class _Merge(Rule[_Merged]):
    roots: ClassVar[tuple[str, ...]] = ("relax.permute_dims",)

    def match(self, graph: Graph, value: Expr) -> _Merged | None:
        shape, result = shape_of(value.args[0]), shape_of(value)
        if shape is None or result is None:
            return None
        runs: list[list[int]] = []  # axes that stay side by side, in the order of the result
        sizes = [axis for axis in range(len(shape)) if shape[axis] != 1]
        for axis in (axis for axis in transpose_axes(value) if shape[axis] != 1):
            if runs and sizes.index(axis) == sizes.index(runs[-1][-1]) + 1:
                runs[-1].append(axis)
            else:
                runs.append([axis])
        if len(runs) == len(shape) or len(runs) < 2:
            return None
        order = sorted(runs)
        merged = [math.prod(shape[axis] for axis in run) for run in order]
        return _Merged(value.args[0], merged, [order.index(run) for run in runs], result)

    def rewrite(self, graph: Graph, found: _Merged) -> Expr:
        flat = graph.emit(relax.op.reshape(found.data, found.shape), str(found.data.name))
        moved = graph.emit(relax.op.permute_dims(flat, found.axes), graph.root_name)
        return relax.op.reshape(moved, found.result)


merge_transposes = rewriting_pass("merge_transposes", lambda: [Transposes(), Reshapes(), _Merge()])
