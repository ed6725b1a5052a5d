"""A group of the kernel graph => one unscheduled PrimFunc, and what its parameters are.

The anchor becomes a stage named after its kind; everything elementwise behind it becomes the one stage "output".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from tvm import te, tirx
from tvm.ir import Expr
from tvm.s_tir import Schedule

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.graph import Graph, Group, Op, Value
from evo_tvm.kernels import elementwise
from evo_tvm.kernels.normalize import layer_norm, softmax
from evo_tvm.kernels.pack import Packing
from evo_tvm.kernels.parameters import Parameter, Parameters
from evo_tvm.kernels.pool import global_avg_pool2d
from evo_tvm.plan.storage import Placement, permuted


@dataclass(frozen=True)
class LoweredGroup:
    """`func` in TE's form, views applied; parameters in its order, the outputs last.

    `inputs` and `outputs` are the group's values: logical shapes and dtypes.
    """

    group: Group
    func: tirx.PrimFunc
    parameters: tuple[Parameter, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def lower_group(graph: Graph, placement: Placement, group: Group, lanes: int, signed_bytes: bool) -> LoweredGroup:
    """Writes the group in TE. `lanes`: float32 lanes of the target's vectors, the width of a dense panel. signed_bytes:
    the target multiplies signed bytes only (`evo_tvm.kernels.signed_bytes`)."""
    inputs = tuple(graph.values[n] for n in group.inputs)
    outputs = tuple(graph.values[n] for n in group.outputs)
    if group.anchor.kind == "tir":
        func, parameters = group.anchor.attrs["func"], [_plain_parameter(v, placement) for v in (*inputs, *outputs)]
    else:
        func, parameters = Lowering(graph, placement, group, lanes, signed_bytes).run()
    return LoweredGroup(group, func, tuple(parameters), inputs, outputs)


def _plain_parameter(value: Value, placement: Placement) -> Parameter:
    if value.data is not None:
        return Parameter(value.name, packing=Packing("plain", shape=value.shape))
    return Parameter(value.name, placement.view(value.name))


#: Anchors whose schedules make bytes of several vectors at once: "rounded", int32, is a stage before "output".
_NARROWING = ("conv2d", "depthwise_conv2d")


class Lowering(Parameters):
    """A group on its way into TE: an algorithm declares its parameters here, and gives its stage."""

    def run(self) -> tuple[tirx.PrimFunc, list[Parameter]]:
        """The function and its parameters."""
        group, kind = self.group, self.group.anchor.kind
        make = self._anchor if kind in ALGORITHMS else getattr(self, f"_{kind}", self._elementwise)
        output = make(group.anchor)
        view = self.placement.view(self.out.name, tuple(int(e) for e in output.shape))
        if "output_strides" in group.anchor.attrs:
            view = replace(view, strides=group.anchor.attrs["output_strides"])
        self.parameters.append(Parameter(self.out.name, view))
        func = te.create_prim_func([*self.tensors, output])
        return self._with_mask(self._apply_views(func)), self.parameters

    def _with_mask(self, func: tirx.PrimFunc) -> tirx.PrimFunc:
        """The function of a convolution under a mask of channels, told of it (see `executor/guard_tiles.py`)."""
        masks = [(op.args[1], op.attrs["channels"]) for op in self.group.ops[1:] if op.kind == "keep"]
        tile = getattr(self.group.anchor.attrs.get("config"), "oc_tile", None)
        if len(masks) != 1 or tile is None:
            return func
        mask, channels = masks[0]
        name = self.values[mask].name
        number = next(i for i, parameter in enumerate(self.parameters) if parameter.name == name)
        return func.with_attr("evo_mask", [number, self.out.layout.block, tile, channels])

    def _apply_views(self, func: tirx.PrimFunc) -> tirx.PrimFunc:
        """Rewrites the accesses of parameters that are not compact to a flat buffer at the view's strides."""
        strided = [p.view for p in self.parameters if p.view is not None and not p.view.compact]
        if not strided:
            return func
        sch = Schedule(func)
        for tensor, parameter in zip([*func.params], self.parameters, strict=True):
            view = parameter.view
            if view is None or view.compact:
                continue
            block, access = _user(sch, tensor.name)
            sch.transform_layout(block, access, _flat_index(view.strides), assume_injective_transform=True)
        return sch.mod["main"]

    # -- anchors --------------------------------------------------------------------------------------------------

    def _anchor(self, op: Op) -> te.Tensor:
        """An operator that has algorithms, computed by the one that the plan chose."""
        algorithm = ALGORITHMS[op.kind][op.attrs["algorithm"]]
        stage = algorithm.stage(self, op, op.attrs["config"])
        if op.kind not in ("dense", "matmul"):
            return self._epilogue(stage)
        width = (op.attrs["right_shape"] if op.kind == "matmul" else self.out.shape)[-1]
        shape, lanes = (*(int(e) for e in stage.shape[:-2]), width), self.lanes
        return self._output(shape, 1, lambda *at: stage[(*at[:-1], at[-1] // lanes, at[-1] % lanes)])

    def _permute(self, op: Op) -> te.Tensor:
        shape, strides = permuted(self.values[op.args[0]].shape, op.attrs["axes"])
        data = self.strided(op.args[0], shape, strides)
        return self._output(self.out.shape, 1, lambda *at: data[at])

    def _softmax(self, op: Op) -> te.Tensor:
        data = self._whole(op.args[0])
        probability = softmax(data, self.lanes)
        return self._output(self.out.shape, 1, lambda *at: probability[at])

    def _layer_norm(self, op: Op) -> te.Tensor:
        operands = [self._whole(i) for i in op.args]
        normal = layer_norm(*operands, lanes=self.lanes, **op.attrs)
        return self._output(self.out.shape, 1, lambda *at: normal[at])

    def _global_avg_pool2d(self, op: Op) -> te.Tensor:
        value = self.values[op.args[0]]
        total, block = global_avg_pool2d(self.data(op.args[0])), value.layout.block
        scale = tirx.const(1.0 / (value.shape[2] * value.shape[3]), "float32")
        return self._output(self.out.shape, 1, lambda n, c, *_: total[n, c // block, c % block] * scale)

    def _concat(self, op: Op) -> te.Tensor:
        parts = [self._whole(i) for i in op.args]
        starts = [sum(self.values[i].shape[1] for i in op.args[:k]) for k in range(len(op.args))]

        def pick(n, c, h, w):  # type: ignore[no-untyped-def]
            result = parts[-1][n, c - starts[-1], h, w]
            for k in range(len(parts) - 2, -1, -1):
                result = tirx.if_then_else(c < starts[k + 1], parts[k][n, c - starts[k], h, w], result)
            return result

        return self._output(self.out.shape, 1, pick)

    def _channel_shuffle(self, op: Op) -> te.Tensor:
        """Channel i * groups + g is what was channel g * (channels / groups) + i."""
        data, block, groups = self.data(0), self.out.layout.block, op.attrs["groups"]
        n, channels, h, w = self.out.shape

        def element(b, co, i, j, v):  # type: ignore[no-untyped-def]
            c = co * block + v
            source = c % groups * (channels // groups) + c // groups
            found = data[b, source // block, i, j, source % block]
            return found if channels % block == 0 else tirx.if_then_else(c < channels, found, _zero(self.out))

        return te.compute((n, -(-channels // block), h, w, block), element, name="output")

    def _channel_slice(self, op: Op) -> te.Tensor:
        data, block, begin = self.data(op.args[0]), self.out.layout.block, op.attrs["begin"]
        n, channels, h, w = self.out.shape
        last = self.values[op.args[0]].shape[1] - 1

        def element(b, co, i, j, v):  # type: ignore[no-untyped-def]
            if begin % block == 0 and channels % block == 0:
                return data[b, co + begin // block, i, j, v]
            c = tirx.min(co * block + v + begin, last)  # what only pads a block is read from somewhere, too
            return data[b, c // block, i, j, c % block]

        return self._output((n, -(-channels // block), h, w, block), block, element)

    def _upsample(self, op: Op) -> te.Tensor:
        data, block, (rows, columns) = self.data(op.args[0]), self.out.layout.block, op.attrs["scale"]
        n, channels, h, w = self.out.shape
        shape = (n, -(-channels // block), h, w, block)
        return self._output(shape, block, lambda b, c, i, j, v: data[b, c, i // rows, j // columns, v])

    def _transform(self, op: Op) -> te.Tensor:
        """From any block to any other; idle lanes of the result are zero."""
        value, block, old = self.values[0], self.out.layout.block, self.values[0].layout.block
        data = self.data(0)
        channels = value.shape[1]

        def element(n, co, h, w, v):  # type: ignore[no-untyped-def]
            c = co * block + v
            found = data[n, c // old, h, w, c % old]
            return found if channels % block == 0 else tirx.if_then_else(c < channels, found, _zero(value))

        n, c, h, w = value.shape
        return te.compute((n, -(-c // block), h, w, block), element, name="output")

    def _elementwise(self, op: Op) -> te.Tensor:
        block = self.out.layout.block
        if block == 1:
            whole = [v for v in self.values if v.shape == self.out.shape]
            if all(v.shape == self.out.shape or v.size == 1 for v in self.values) and whole:
                return self._output((self.out.size,), 1, None)
            return self._output(self.out.shape or (1,), 1, None)
        n, c, h, w = self.out.shape
        return self._output((n, -(-c // block), h, w, block), block, None)

    # -- the elementwise stage ------------------------------------------------------------------------------------

    def _epilogue(self, stage: te.Tensor) -> te.Tensor:
        shape = tuple(int(e) for e in stage.shape)
        return self._output(shape, shape[4], lambda *index: stage[index])

    def _output(self, shape: tuple[int, ...], block: int, anchor: Callable[..., Expr] | None) -> te.Tensor:
        """The stage "output" of `shape`: the group's elementwise operators over `anchor`'s value at each index.

        block > 1 (or a rank-5 shape): (N, C/b, H, W, b) indices. Otherwise the operands broadcast as numpy's do.
        """
        ops = self.group.ops if anchor is None else self.group.ops[1:]
        first = len(self.values) + (0 if anchor is None else 1)
        if anchor is not None and self._lacking is not None:
            anchor = self._complete(anchor, ops, shape, self._lacking)
        needed = {a for op in ops for a in op.args if a < len(self.values)}
        operands = {i: self._operand(i, shape, block) for i in sorted(needed)}

        def results(index: tuple[Expr, ...], ops: tuple[Op, ...]) -> dict[int, Expr]:
            found = {i: load(index) for i, load in operands.items()}
            if anchor is not None:
                found[first - 1] = anchor(*index)
            for k, op in enumerate(ops):
                found[first + k] = elementwise.apply(op.kind, [found[a] for a in op.args], op.attrs)
            return found

        def element(*index: Expr) -> Expr:
            result = results(index, ops)[first + len(ops) - 1]
            padded = block > 1 and self.out.shape[1] % block != 0 and self.out.dtype == "float32"
            if not padded or all(op.kind in elementwise.FINITE for op in ops):
                return result
            return tirx.Select(index[1] * block + index[4] < self.out.shape[1], result, _zero(self.out))

        last = ops[-1] if ops else None
        if self.group.anchor.kind in _NARROWING and last and last.kind == "quantize" and self.out.dtype == "uint8":
            whole = te.compute(
                shape,
                lambda *at: elementwise.rounded(results(at, ops[:-1])[last.args[0]], **last.attrs),
                name="rounded",
            )
            return te.compute(shape, lambda *at: elementwise.narrowed(whole[at], last.attrs["dtype"]), name="output")
        return te.compute(shape, element, name="output")

    def _complete(
        self, anchor: Callable[..., Expr], ops: tuple[Op, ...], shape: tuple[int, ...], lacking: np.ndarray
    ) -> Callable[..., Expr]:
        """The anchor's sums with what they lack, one number for each channel; a bias that comes next takes it up."""
        bias = next((a for a in ops[0].args if a < len(self.values)), None) if ops and ops[0].kind == "add" else None
        if bias is not None:
            known = self.values[bias].data
            if known is not None and known.dtype == np.int32 and known.size == lacking.size:
                self._changed[bias] = known + lacking.reshape(known.shape)
                return anchor
        if len(shape) == 5:
            packing = Packing("blocked", (1, shape[1], 1, 1, shape[4]))
            blocked = self.table(packing.apply(lacking.reshape(1, -1, 1, 1)))
            return lambda *at: anchor(*at) + blocked[0, at[1], 0, 0, at[4]]
        plain = self.table(lacking)
        return lambda *at: anchor(*at) + plain[at[-1]]

    def _operand(self, index: int, shape: tuple[int, ...], block: int) -> Callable[[tuple[Expr, ...]], Expr]:
        """How to read input `index` at an index of the output stage."""
        value = self.values[index]
        if len(shape) == 5 and len(self.out.shape) == 4:
            return self._blocked_operand(index, block)
        if len(shape) == 1 and value.size == self.out.size:  # seen flat
            flat = self._seen(index, (value.size,))
            return lambda at: flat[at[0]]
        seen = value.shape
        if self.group.anchor.kind == "dense" and len(seen) > 2:
            seen = (math.prod(seen[:-1]), seen[-1])
        if value.size == 1:
            seen = (1,)
        tensor = self._seen(index, seen or (1,))

        def load(at: tuple[Expr, ...]) -> Expr:
            tail = at[len(at) - len(seen) :] if seen else ()
            return tensor[tuple(0 if e == 1 else i for e, i in zip(seen, tail, strict=True)) or (0,)]

        return load

    def _blocked_operand(self, index: int, block: int) -> Callable[[tuple[Expr, ...]], Expr]:
        value = self.values[index]
        n, c, h, w = (1,) * (4 - len(value.shape)) + value.shape
        channels = c == self.out.shape[1] and c > 1
        blocked = channels and (value.data is not None or value.layout.block > 1)
        if not blocked:
            tensor = self._seen(index, (n, c, h, w))
        elif value.data is not None:
            tensor = self.constant(index, Packing("blocked", (n, -(-c // block), h, w, block)))
        else:
            tensor = self.data(index)

        def load(at: tuple[Expr, ...]) -> Expr:
            b, co, i, j, v = at
            pixel = (0 if h == 1 else i, 0 if w == 1 else j)
            image = 0 if n == 1 else b
            if blocked:
                return tensor[(image, co, *pixel, v)]
            channel = co * block + v if c % block == 0 else tirx.min(co * block + v, c - 1)
            return tensor[(image, channel if channels else 0, *pixel)]

        return load


def _zero(value: Value) -> Expr:
    return tirx.const(0, value.dtype)


def _flat_index(strides: tuple[int, ...]) -> Callable[..., list[Expr]]:
    return lambda *index: [sum(i * s for i, s in zip(index, strides, strict=True))]


def _user(sch: Schedule, buffer: str):  # type: ignore[no-untyped-def]
    """(block, ("read"|"write", index)) of an access to the parameter `buffer`."""
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        stmt = sch.get(block)
        for access, regions in (("read", stmt.reads), ("write", stmt.writes)):
            for i, region in enumerate(regions):
                if region.source.name == buffer:
                    return block, (access, i)
    raise AssertionError(f"no block uses parameter {buffer}")
