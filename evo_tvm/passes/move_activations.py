"""relu(concat(a, b)) => concat(relu(a), relu(b)); pad(x, 0) * s => pad(x * s, 0): elementwise operators up to kernels.

Behind a concatenation or a padding they are a kernel of their own; behind each of the convolutions before it they cost
next to nothing, and a scale and shift go into its weight and bias. So only where every part comes from such a kernel.
Past max-pooling nothing moves: its kernel takes elementwise operators along as a convolution's does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm import relax
from tvm.ir import Call, Expr

from evo_tvm.passes._elementwise import BINARY, UNARY, ends_in_kernel, operand_and_constant, rebuilt, single
from evo_tvm.passes._rewrite import Graph, Rule, operator_name, rewriting_pass
from evo_tvm.passes._values import Array, constant, shape_of


@dataclass(frozen=True)
class _Joined:
    call: Call
    fields: list[Expr]
    axis: int
    array: Array | None

    def parts(self) -> list[Array | None]:
        """What of the constant each field meets."""
        if self.array is None or self.array.shape[self.axis] == 1:
            return [self.array] * len(self.fields)
        sizes = [(shape_of(field) or ())[self.axis] for field in self.fields]
        return [*np.split(self.array, np.cumsum(sizes)[:-1], self.axis)]


class _AboveConcat(Rule[_Joined]):
    roots: ClassVar[tuple[str, ...]] = (*UNARY, *BINARY)

    def match(self, graph: Graph, value: Expr) -> _Joined | None:
        concat = single(graph, value.args[0], "relax.concat")
        found = None if concat is None else operand_and_constant(value)
        if found is None or concat is None or not isinstance(concat.args[0], relax.Tuple):
            return None
        fields, rank = list(concat.args[0].fields), int(concat.ty.ndim)
        if any(shape_of(field) is None for field in fields):
            return None
        return _Joined(value, fields, int(concat.attrs.axis) % rank, found[1])

    def check(self, graph: Graph, found: _Joined) -> str | None:
        parts = all(ends_in_kernel(graph, field) for field in found.fields)
        return None if parts else "some of what is joined does not come from a kernel of its own"

    def rewrite(self, graph: Graph, found: _Joined) -> Expr:
        fields = []
        for field, part in zip(found.fields, found.parts(), strict=True):
            args = [field] if part is None else [field, constant(part)]
            fields.append(graph.emit(rebuilt(found.call, args), graph.root_name))
        return relax.op.concat(fields, found.axis)


@dataclass(frozen=True)
class _Padded:
    call: Call
    pad: Call
    array: Array | None
    value: float | None  # what the padding becomes


#: What an elementwise operator makes of the value that a padding has.
_VALUES: dict[str, Callable[[Call, float, Array | None], object]] = {
    "relax.nn.relu": lambda call, value, array: max(value, 0.0),
    "relax.clip": lambda call, value, array: np.clip(value, float(call.args[1].value), float(call.args[2].value)),
    "relax.multiply": lambda call, value, array: value * np.asarray(array),
    "relax.add": lambda call, value, array: value + np.asarray(array),
}


class _AbovePad(Rule[_Padded]):
    roots: ClassVar[tuple[str, ...]] = tuple(_VALUES)

    def match(self, graph: Graph, value: Expr) -> _Padded | None:
        pad = single(graph, value.args[0], "relax.nn.pad")
        found = None if pad is None else operand_and_constant(value)
        if found is None or pad is None or pad.attrs.pad_mode != "constant":
            return None
        values = np.unique(np.asarray(_VALUES[operator_name(value)](value, float(pad.attrs.pad_value), found[1])))
        return _Padded(value, pad, found[1], float(values[0]) if values.size == 1 else None)

    def check(self, graph: Graph, found: _Padded) -> str | None:
        if found.value is None or not np.isfinite(found.value):
            return "the padding would have more than one value"
        pairs = np.reshape([int(width) for width in found.pad.attrs.pad_width], (-1, 2))
        sizes = [1] * len(pairs) if found.array is None else found.array.shape
        if any(pair.any() and size > 1 for pair, size in zip(pairs, sizes, strict=True)):
            return "the constant differs along a padded axis"
        kernel = ends_in_kernel(graph, found.pad.args[0])
        return None if kernel else "what is padded does not come from a kernel of its own"

    def rewrite(self, graph: Graph, found: _Padded) -> Expr:
        data = found.pad.args[0]
        args = [data] if found.array is None else [data, constant(found.array)]
        widths = [int(width) for width in found.pad.attrs.pad_width]
        return relax.op.nn.pad(graph.emit(rebuilt(found.call, args), graph.root_name), widths, "constant", found.value)


move_activations = rewriting_pass("move_activations", lambda: [_AboveConcat(), _AbovePad()])
