"""Relax module => kernel graph with one operator a group.

Operators that have a kernel of their own (convolution, pooling, dense, elementwise, concat, views) keep their names.
Every other operator is legalized by TVM, one call at a time, into TIR functions that the default schedule takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst

from evo_tvm.errors import CompileError
from evo_tvm.graph import Codes, Graph, Group, Op, Value, real, transposed
from evo_tvm.kernels.elementwise import EXPRESSIONS
from evo_tvm.passes._gates import KEEP, gate_attributes, gate_operator
from evo_tvm.plan.storage import permuted

#: Relax elementwise operators whose names differ from ours.
_RENAMED = {
    "nn.relu": "relu",
    "nn.leakyrelu": "leaky_relu",
    "nn.silu": "silu",
    "nn.gelu": "gelu",
    "nn.gelu_tanh": "gelu_tanh",
}
#: Operators that only say the same elements have another shape.
_VIEWS = {"reshape", "flatten", "squeeze", "expand_dims"}


def read_relax(module: tvm.IRModule) -> Graph:
    """The graph of `module["main"]`, whose shapes are static and whose weights are constants.

    Raises CompileError for an operator that cannot be compiled.
    """
    reader = _Reader()
    main = module["main"]
    inputs = [reader.new_value(p.name, p.ty) for p in main.params]
    outputs = reader.read(module, main, [[name] for name in inputs])
    graph = Graph(reader.values, tuple(reader.groups), tuple(inputs), tuple(outputs))
    return graph.with_groups(graph.groups)


class _Reader:
    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.groups: list[Group] = []
        self._constants: dict[int, tuple[str, GenericConst]] = {}

    def new_value(self, hint: str, ty: Any, data: np.ndarray | None = None) -> str:
        """Adds a value of the Relax tensor type `ty` (or of `data`), under a name like `hint`; returns the name."""
        name, count = hint, 1
        while name in self.values:
            name, count = f"{hint}.{count}", count + 1
        if data is not None:
            self.values[name] = Value(name, data.shape, str(data.dtype), data)
        else:
            self.values[name] = Value(name, _static_shape(ty, hint), str(ty.dtype))
        return name

    def read(self, module: tvm.IRModule, func: relax.Function, arguments: list[list[str]]) -> list[str]:
        """Adds the groups of `func`; `arguments` are the values of its parameters, a tuple's fields in a list."""
        env: dict[relax.Var, list[str]] = dict(zip(func.params, arguments, strict=True))
        body = func.body
        if isinstance(body, relax.SeqExpr):
            for block in body.blocks:
                for binding in block.bindings:
                    env[binding.var] = self._bind(module, binding.var, binding.value, env)
            body = body.body
        return self._operand(body, env)

    def _operand(self, expr: relax.Expr, env: Mapping[relax.Var, list[str]]) -> list[str]:
        if isinstance(expr, relax.Var):
            return env[expr]
        if isinstance(expr, GenericConst):
            return [self._constant(expr)]
        if isinstance(expr, relax.Tuple):
            return [name for e in expr.fields for name in self._operand(e, env)]
        raise CompileError(f"cannot read a Relax {type(expr).__name__} as an operand")

    def _constant(self, expr: GenericConst) -> str:
        key = expr.value.__chandle__()  # an address: the tensor is kept, so that no other comes to lie there
        if key not in self._constants:
            self._constants[key] = self.new_value("const", None, expr.value.numpy()), expr
        return self._constants[key][0]

    def _bind(
        self, module: tvm.IRModule, var: relax.Var, value: relax.Expr, env: Mapping[relax.Var, list[str]]
    ) -> list[str]:
        if isinstance(value, relax.TupleGetItem):
            return [self._operand(value.tuple_value, env)[value.index]]
        if not isinstance(value, relax.Call):
            return self._operand(value, env)
        if isinstance(value.op, relax.GlobalVar):  # a Relax function of its own
            return self.read(module, module[value.op], [self._operand(a, env) for a in value.args])
        kind = value.op.name.removeprefix("relax.")
        if kind == "call_tir":
            return self._add_tir(module[value.args[0]], var, self._operand(value.args[1], env))
        if gate_operator(value):
            return [self._add_gate(gate_operator(value), var, value, env)]
        known = self._known(kind, var, value, env)
        if known is not None:
            return [known]
        claimed = self._claim(_RENAMED.get(kind, kind), value, env)
        if claimed is not None:
            name, operands, attrs = claimed
            output = self.new_value(var.name, var.ty)
            self.groups.append(Group(output, operands, (output,), (Op(name, tuple(range(len(operands))), attrs),)))
            return [output]
        return self._legalize(kind, var, value, env)

    def _known(self, kind: str, var: relax.Var, call: relax.Call, env: Mapping[relax.Var, list[str]]) -> str | None:
        """A constant that is made of another one; what is known of its integers is kept."""
        if kind not in _VIEWS | {"dequantize", "permute_dims"}:
            return None
        seen = self.values[self._operand(call.args[0], env)[0]]
        if seen.data is None:
            return None
        if kind in _VIEWS:
            return self.new_value(var.name, None, seen.data.reshape(_static_shape(var.ty, var.name)))
        if kind == "permute_dims":
            axes = call.attrs.axes
            order = _ints(axes) if axes is not None else tuple(reversed(range(seen.data.ndim)))
            name = self.new_value(var.name, None, seen.data.transpose(order))
            codes = None if seen.codes is None else transposed(seen.codes, order)
        else:
            scale, zero_point = (self.values[self._operand(a, env)[0]].data for a in call.args[1:3])
            if scale is None or zero_point is None or str(call.ty.dtype) != "float32":
                return None
            codes = Codes(seen.data, scale, zero_point, int(call.attrs.axis) % max(seen.data.ndim, 1))
            name = self.new_value(var.name, None, real(codes))
        self.values[name] = replace(self.values[name], codes=codes)
        return name

    def _add_tir(self, func: tvm.tirx.PrimFunc, var: relax.Var, operands: list[str]) -> list[str]:
        types = var.ty.fields if isinstance(var.ty, relax.TupleType) else [var.ty]
        outputs = tuple(self.new_value(var.name, ty) for ty in types)
        op = Op("tir", tuple(range(len(operands))), {"func": func})
        self.groups.append(Group(outputs[0], tuple(operands), outputs, (op,)))
        return list(outputs)

    def _add_gate(self, kind: str, var: relax.Var, call: relax.Call, env: Mapping[relax.Var, list[str]]) -> str:
        tensors = [name for a in call.args[1:] if _holds_tensors(a.ty) for name in self._operand(a, env)]
        output = self.new_value(var.name, var.ty)
        attrs = gate_attributes(call)
        if kind == KEEP:
            gate = next(group for group in self.groups if tensors[1] in group.outputs)
            attrs["channels"] = -(-self.values[tensors[1]].size // self.values[gate.inputs[0]].size)
        op = Op(kind.removeprefix("evo.gate."), tuple(range(len(tensors))), attrs)
        self.groups.append(Group(output, tuple(tensors), (output,), (op,)))
        return output

    def _legalize(self, kind: str, var: relax.Var, call: relax.Call, env: Mapping[relax.Var, list[str]]) -> list[str]:
        """Has TVM write the operator as TIR functions, in a module of its own, and reads those."""
        args = list(call.args)
        places = [i for i, a in enumerate(args) if _holds_tensors(a.ty)]
        tensors = [args[i] for i in places]
        params = [relax.Var(f"p{i}", args[i].ty) for i in places]
        for i, param in zip(places, params, strict=True):
            args[i] = param
        builder = relax.BlockBuilder()
        with builder.function("main", params):
            with builder.dataflow():
                if kind == "take":  # its default mode reads out of bounds where an index is; this one stays inside
                    call = relax.op.take(*args, axis=call.attrs.axis, mode="clip")
                else:
                    call = relax.Call(call.op, args, call.attrs, call.ty_args)
                result = builder.emit_output(call)
            builder.emit_func_output(result)
        module = relax.transform.LegalizeOps()(builder.get())
        module = relax.transform.DecomposeOpsForInference()(module)
        module = relax.transform.LegalizeOps()(module)
        main = module["main"]
        first = main.body.blocks[0].bindings[0].value
        if isinstance(first, relax.Call) and first.op.same_as(call.op):
            raise CompileError(
                f"operator {kind} cannot be compiled: TVM has no TIR for it",
                where=var.name,
                hint="rewrite the model without it, or report it with the model's operator and shapes",
            )
        before = len(self.groups)
        outputs = self.read(module, main, [self._operand(a, env) for a in tensors])
        # The layer that a profile names is the model's.
        self.groups[before:] = [replace(g, name=var.name) for g in self.groups[before:]]
        return outputs

    def _claim(
        self, kind: str, call: relax.Call, env: Mapping[relax.Var, list[str]]
    ) -> tuple[str, tuple[str, ...], dict[str, Any]] | None:
        """(kind, operands, attributes) if a kernel of ours computes this call."""
        if kind in _VIEWS:
            return "view", (self._operand(call.args[0], env)[0],), {}
        if not isinstance(call.ty, relax.TensorType):
            return None
        if kind in ("quantize", "dequantize"):
            return self._claim_quantization(kind, call, env)
        if str(call.ty.dtype) != "float32":
            return None
        operands = [a for a in call.args if _holds_tensors(a.ty)]
        names = tuple(n for a in operands for n in self._operand(a, env))
        values = [self.values[n] for n in names]
        if any(v.dtype != "float32" for v in values):
            return None
        if kind == "nn.prelu":
            return self._claim_prelu(call, names)
        if kind in EXPRESSIONS:
            return kind, names, _elementwise_attrs(kind, call)
        if values and values[0].data is not None and kind != "matmul":
            return None  # of a constant: nothing to be fast about
        claim = getattr(self, f"_claim_{kind.replace('.', '_')}", None)
        found = claim(call, values) if claim else None
        return (found[0], names, found[1]) if found else None

    def _claim_quantization(
        self, kind: str, call: relax.Call, env: Mapping[relax.Var, list[str]]
    ) -> tuple[str, tuple[str, ...], dict[str, Any]] | None:
        """Between float32 and bytes, with one scale that is known."""
        data, scale, zero_point = (self.values[self._operand(a, env)[0]] for a in call.args)
        dtypes = {str(call.ty.dtype), data.dtype}
        if scale.data is None or zero_point.data is None or scale.size * zero_point.size != 1:
            return None
        if "float32" not in dtypes or len(dtypes & {"uint8", "int8"}) != 1:
            return None
        attrs: dict[str, Any] = {"scale": float(scale.data.item()), "zero_point": int(zero_point.data.item())}
        if kind == "quantize":
            attrs["dtype"] = str(call.ty.dtype)
        return kind, (data.name,), attrs

    def _claim_prelu(
        self, call: relax.Call, names: tuple[str, ...]
    ) -> tuple[str, tuple[str, ...], dict[str, Any]] | None:
        """With constant slopes, which become a constant that broadcasts against the data."""
        data, slope = (self.values[n] for n in names)
        if slope.data is None:
            return None
        rank = len(data.shape)
        axis = int(call.attrs.axis) % rank
        shape = [slope.size if place == axis else 1 for place in range(rank)]
        return "prelu", (names[0], self.new_value(slope.name, None, slope.data.reshape(shape))), {}

    def _claim_nn_conv2d(self, call: relax.Call, values: list[Value]) -> tuple[str, dict[str, Any]] | None:
        attrs, (data, weight) = call.attrs, values
        if weight.data is None or str(attrs.data_layout) != "NCHW" or str(attrs.kernel_layout) != "OIHW":
            return None
        groups, oc, ic = int(attrs.groups), weight.shape[0], data.shape[1]
        kept = {
            "stride": _ints(attrs.strides),
            "padding": _ints(attrs.padding),
            "dilation": _ints(attrs.dilation),
            "groups": groups,
        }
        return ("depthwise_conv2d" if groups == ic == oc and groups > 1 else "conv2d"), kept

    def _claim_nn_conv2d_transpose(self, call: relax.Call, values: list[Value]) -> tuple[str, dict[str, Any]] | None:
        """Unless it is grouped, or has a stride and a dilation in one direction."""
        attrs, weight = call.attrs, values[1]
        if weight.data is None or str(attrs.data_layout) != "NCHW" or str(attrs.kernel_layout) != "IOHW":
            return None
        stride, dilation = _ints(attrs.strides), _ints(attrs.dilation)
        if int(attrs.groups) != 1 or any(s > 1 and d > 1 for s, d in zip(stride, dilation, strict=True)):
            return None
        return "conv2d_transpose", {
            "stride": stride,
            "padding": _ints(attrs.padding),
            "dilation": dilation,
            "groups": 1,
            "output_padding": _ints(attrs.output_padding),
        }

    def _claim_matmul(self, call: relax.Call, values: list[Value]) -> tuple[str, dict[str, Any]] | None:
        data, weight = values
        if min(len(data.shape), len(weight.shape)) < 2:
            return None
        if weight.data is not None and len(weight.shape) == 2 and data.data is None:
            return "dense", {}
        rank = max(len(data.shape), len(weight.shape))
        attrs: dict[str, Any] = {}
        for side, value in (("left", data), ("right", weight)):
            shape = (1,) * (rank - len(value.shape)) + value.shape
            attrs |= {f"{side}_shape": shape, f"{side}_strides": permuted(shape, tuple(range(rank)))[1]}
        return "matmul", attrs

    def _claim_permute_dims(self, call: relax.Call, values: list[Value]) -> tuple[str, dict[str, Any]] | None:
        rank = len(values[0].shape)
        axes = call.attrs.axes
        return "permute", {"axes": _ints(axes) if axes is not None else tuple(reversed(range(rank)))}

    def _claim_strided_slice(self, call: relax.Call, values: list[Value]) -> tuple[str, dict[str, Any]] | None:
        """Of the channels of an image, each of a range."""
        axes, begin, _, *strides = (tuple(e.value for e in a.fields) for a in call.args[1:])
        (data,) = values
        if len(data.shape) != 4 or axes != (1,) or (strides and strides[0] != (1,)):
            return None
        first = begin[0] + data.shape[1] if begin[0] < 0 else begin[0]
        return "channel_slice", {"begin": min(max(int(first), 0), data.shape[1])}

    def _claim_image_resize2d(self, call: relax.Call, values: list[Value]) -> tuple[str, dict[str, Any]] | None:
        """Each pixel several times."""
        attrs, size, old = call.attrs, _static_shape(call.ty, "")[2:], values[0].shape[2:]
        how = (attrs.layout, attrs.method, attrs.coordinate_transformation_mode, attrs.rounding_method)
        if tuple(map(str, how)) != ("NCHW", "nearest_neighbor", "asymmetric", "floor"):
            return None
        scale = size[0] // old[0], size[1] // old[1]
        return ("upsample", {"scale": scale}) if (old[0] * scale[0], old[1] * scale[1]) == size else None

    def _claim_nn_softmax(self, call: relax.Call, values: list[Value]) -> tuple[str, dict[str, Any]] | None:
        rank = len(values[0].shape)
        return ("softmax", {}) if int(call.attrs.axis) % rank == rank - 1 else None

    def _claim_nn_layer_norm(self, call: relax.Call, values: list[Value]) -> tuple[str, dict[str, Any]] | None:
        attrs, rank = call.attrs, len(values[0].shape)
        if sorted(a % rank for a in _ints(attrs.axes)) != [rank - 1] or not (attrs.center and attrs.scale):
            return None
        return "layer_norm", {"epsilon": float(attrs.epsilon)}

    def _claim_pool(self, kind: str, call: relax.Call, values: list[Value]) -> tuple[str, dict[str, Any]] | None:
        attrs = call.attrs
        if str(attrs.layout) != "NCHW":
            return None
        return kind, {
            "pool_size": _ints(attrs.pool_size),
            "stride": _ints(attrs.strides),
            "padding": _ints(attrs.padding),
            "dilation": _ints(attrs.dilation),
            "count_include_pad": bool(attrs.count_include_pad),
        }

    def _claim_nn_max_pool2d(self, call: relax.Call, values: list[Value]) -> tuple[str, dict[str, Any]] | None:
        return self._claim_pool("max_pool2d", call, values)

    def _claim_nn_avg_pool2d(self, call: relax.Call, values: list[Value]) -> tuple[str, dict[str, Any]] | None:
        return self._claim_pool("avg_pool2d", call, values)

    def _claim_nn_adaptive_avg_pool2d(self, call: relax.Call, values: list[Value]) -> tuple[str, dict[str, Any]] | None:
        attrs = call.attrs
        if str(attrs.layout) != "NCHW" or _static_shape(call.ty, "")[2:] != (1, 1):
            return None
        return "global_avg_pool2d", {}

    def _claim_concat(self, call: relax.Call, values: list[Value]) -> tuple[str, dict[str, Any]] | None:
        axis = 0 if call.attrs.axis is None else int(call.attrs.axis)
        rank = len(values[0].shape)
        if any(v.data is not None for v in values):
            return None
        return ("concat", {"axis": 1}) if rank == 4 and axis % rank == 1 else None


def _holds_tensors(ty: Any) -> bool:
    """Whether this is the type of a tensor or of several; a slice's bounds are a tuple of numbers."""
    return isinstance(ty, relax.TensorType) or (isinstance(ty, relax.TupleType) and all(map(_holds_tensors, ty.fields)))


def _elementwise_attrs(kind: str, call: relax.Call) -> dict[str, Any]:
    if kind == "clip":
        return {"min": float(call.args[1].value), "max": float(call.args[2].value)}
    if kind == "leaky_relu":
        return {"alpha": float(call.attrs.alpha)}
    return {}


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def _static_shape(ty: Any, name: str) -> tuple[int, ...]:
    shape = getattr(ty, "shape", None)
    if shape is None or not all(hasattr(e, "value") for e in shape.values):
        raise CompileError(
            "its shape is not static", where=name, hint="give every free dimension with --input NAME:SHAPE"
        )
    return tuple(int(e) for e in shape.values)
