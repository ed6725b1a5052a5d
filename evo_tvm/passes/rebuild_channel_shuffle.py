"""take(x, [0, 3, 1, 4, 2, 5], axis) => reshape(transpose(reshape(x))), where the places deal out groups in turn.

A channel shuffle (Zhang et al., "ShuffleNet", CVPR 2018) written as a gather: as a transpose it can cancel and merge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm import relax
from tvm.ir import Expr

from evo_tvm.passes._rewrite import Graph, Rule, rewriting_pass
from evo_tvm.passes._values import array_of, shape_of


@dataclass(frozen=True)
class _Shuffle:
    data: Expr
    shape: tuple[int, ...]
    axis: int
    groups: int


class _Rebuild(Rule[_Shuffle]):
    roots: ClassVar[tuple[str, ...]] = ("relax.take",)

    def match(self, graph: Graph, value: Expr) -> _Shuffle | None:
        shape, places = shape_of(value.args[0]), array_of(value.args[1])
        if shape is None or places is None or places.ndim != 1 or value.attrs.axis is None or places.size < 4:
            return None
        axis = int(value.attrs.axis) % len(shape)
        each = int(places[1]) - int(places[0])  # channels of a group
        if places.size != shape[axis] or each < 2 or shape[axis] % each:
            return None
        wanted = np.arange(shape[axis]).reshape(-1, each).T.reshape(-1)
        return _Shuffle(value.args[0], shape, axis, shape[axis] // each) if (places == wanted).all() else None

    def rewrite(self, graph: Graph, found: _Shuffle) -> Expr:
        shape, axis, groups = found.shape, found.axis, found.groups
        split = (*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
        axes = list(range(len(split)))
        axes[axis : axis + 2] = [axis + 1, axis]
        apart = graph.emit(relax.op.reshape(found.data, split), graph.root_name)
        return relax.op.reshape(graph.emit(relax.op.permute_dims(apart, axes), graph.root_name), shape)


rebuild_channel_shuffle = rewriting_pass("rebuild_channel_shuffle", lambda: [_Rebuild()])
