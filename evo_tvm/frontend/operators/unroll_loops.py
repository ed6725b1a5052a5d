"""Scan and Loop => their bodies, once for each step, where the number of steps is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from evo_tvm.frontend.operators.builder import (
    Builder,
    CannotRewrite,
    Rewrite,
    attribute,
    constant,
    operand,
    required,
    static_shape,
)

# More steps than this make a graph too large to compile in a reasonable time.
_MAX_STEPS = 512


def _scan(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """Inputs: the states, then the tensors to walk along; outputs: the last states, then what each step gave."""
    if op.opset < 9:
        raise CannotRewrite("Scan had other operands before operator set 9")
    body: ir.Graph = attribute(node, "body")
    walked = attribute(node, "num_scan_inputs")
    states = [required(node, index) for index in range(len(node.inputs) - walked)]
    tensors = [required(node, index) for index in range(len(states), len(node.inputs))]
    axes = attribute(node, "scan_input_axes", [0] * walked)
    directions = attribute(node, "scan_input_directions", [0] * walked)
    steps = static_shape(tensors[0])[axes[0]]
    _check_steps(steps)
    produced: list[list[ir.Value]] = [[] for _ in range(len(body.outputs) - len(states))]
    for step in range(steps):
        places = [steps - 1 - step if backwards else step for backwards in directions]
        slices = [
            op.op("Gather", tensor, op.const(place, np.int64), axis=axis)
            for tensor, place, axis in zip(tensors, places, axes, strict=True)
        ]
        outputs = op.inline(body, [*states, *slices])
        states, values = outputs[: len(states)], outputs[len(states) :]
        for collected, value in zip(produced, values, strict=True):
            collected.append(value)
    out_axes = attribute(node, "scan_output_axes", [0] * len(produced))
    out_directions = attribute(node, "scan_output_directions", [0] * len(produced))
    stacked = [
        _stack(op, values[::-1] if backwards else values, axis)
        for values, axis, backwards in zip(produced, out_axes, out_directions, strict=True)
    ]
    return [*states, *stacked]


def _loop(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """Inputs: number of steps, whether to start, the states; the body takes step and condition before the states."""
    body: ir.Graph = attribute(node, "body")
    count, condition = constant(operand(node, 0)), operand(node, 1)
    if count is None:
        raise CannotRewrite("the number of steps is not known")
    start = True if condition is None else constant(condition)
    if start is None or not _goes_on(body):
        raise CannotRewrite("when it ends depends on what it computes")
    steps = int(count.reshape(-1)[0]) if bool(np.all(start)) else 0
    _check_steps(steps)
    states = [required(node, index) for index in range(2, len(node.inputs))]
    produced: list[list[ir.Value]] = [[] for _ in range(len(body.outputs) - 1 - len(states))]
    if steps == 0 and produced:
        raise CannotRewrite("it has no steps, so the shapes of what it collects are not known")
    for step in range(steps):
        outputs = op.inline(body, [op.const(step, np.int64), op.const(True), *states])
        states, values = outputs[1 : 1 + len(states)], outputs[1 + len(states) :]
        for collected, value in zip(produced, values, strict=True):
            collected.append(value)
    return [*states, *(_stack(op, values, 0) for values in produced)]


def _goes_on(body: ir.Graph) -> bool:
    """Whether the condition that `body` returns is the one it was given, or constantly true."""
    value: ir.Value | None = body.outputs[0]
    while value is not None:
        if value is body.inputs[1]:
            return True
        known = constant(value)
        if known is not None:
            return bool(np.all(known))
        producer = value.producer()
        value = producer.inputs[0] if producer is not None and producer.op_type == "Identity" else None
    return False


def _stack(op: Builder, values: Sequence[ir.Value], axis: int) -> ir.Value:
    """Return `values` along a new axis."""
    rows = [op.shape_op("Unsqueeze", value, [axis]) for value in values]
    return op.op("Concat", *rows, axis=axis)


def _check_steps(steps: int) -> None:
    """Refuse loops that are too long to unroll."""
    if steps > _MAX_STEPS:
        raise CannotRewrite(f"{steps} steps are too many to unroll")


REWRITES: dict[tuple[str, str], Rewrite] = {("", "Loop"): _loop, ("", "Scan"): _scan}
