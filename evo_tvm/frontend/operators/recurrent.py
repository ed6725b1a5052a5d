"""RNN, GRU and LSTM => their equations, once for each step: the number of steps is known.

https://onnx.ai/onnx/operators/onnx__LSTM.html and its neighbours give the equations, the order of the gates in the
weights, and what `layout`, `sequence_lens` and `linear_before_reset` mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from evo_tvm.frontend.operators.builder import (
    Builder,
    CannotRewrite,
    Rewrite,
    attribute,
    known_dtype,
    operand,
    required,
    static_shape,
)

# More steps than this make a graph too large to compile in a reasonable time.
_MAX_STEPS = 512
# Activations without parameters; the others (LeakyRelu, Affine, ...) have attributes of their own.
_ACTIVATIONS = frozenset({"Relu", "Tanh", "Sigmoid", "Softsign", "Softplus"})


@dataclass(frozen=True)
class _Direction:
    """The operands of one direction: weights transposed, [I, gates*H] and [H, gates*H]; biases [gates*H]."""

    w: ir.Value
    r: ir.Value
    w_bias: ir.Value | None
    r_bias: ir.Value | None
    peepholes: Sequence[ir.Value]
    activations: Sequence[str]
    hidden_size: int


#: From a direction, x [N, I], h [N, H] and (LSTM) c [N, H]: the next state.
_Cell = Callable[[Builder, _Direction, ir.Value, "tuple[ir.Value, ...]"], "tuple[ir.Value, ...]"]


def _recurrent(gates: int, default_activations: Sequence[str], cell: _Cell, states: int) -> Rewrite:
    """Return the rewrite of a recurrent operator of `gates` gates whose cell carries `states` states."""

    def rewrite(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
        if attribute(node, "clip"):
            raise CannotRewrite("it clips")
        x, batch_first = required(node, 0), bool(attribute(node, "layout", 0))
        if batch_first:
            x = op.op("Transpose", x, perm=[1, 0, 2])
        sizes = static_shape(node.inputs[0])
        steps, batch = (sizes[1], sizes[0]) if batch_first else (sizes[0], sizes[1])
        if steps > _MAX_STEPS:
            raise CannotRewrite(f"{steps} steps are too many to unroll")
        inputs = [op.shape_op("Squeeze", op.slice(x, 0, step, step + 1), [0]) for step in range(steps)]
        names = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
        directions = names[attribute(node, "direction", "forward")]
        results = []
        for index, backwards in enumerate(directions):
            direction = _direction(op, node, gates, default_activations, index)
            state = _initial_state(op, node, direction, index, batch, states, batch_first)
            results.append(_run(op, cell, direction, inputs, state, _active(op, node, steps), backwards))
        return _outputs(op, results, states, batch_first)

    return rewrite


def _direction(op: Builder, node: ir.Node, gates: int, defaults: Sequence[str], index: int) -> _Direction:
    """Return the operands of direction `index`."""
    size = static_shape(required(node, 2))[2]
    w, r = (op.op("Transpose", _pick(op, required(node, at), index), perm=[1, 0]) for at in (1, 2))
    w_bias = r_bias = None
    bias = operand(node, 3)
    if bias is not None:
        both = _pick(op, bias, index)
        w_bias, r_bias = op.slice(both, 0, 0, gates * size), op.slice(both, 0, gates * size, 2 * gates * size)
    weights = operand(node, 7)
    peepholes = []
    if weights is not None:
        row = _pick(op, weights, index)
        peepholes = [op.slice(row, 0, gate * size, (gate + 1) * size) for gate in range(3)]
    count = len(defaults)
    names = list(attribute(node, "activations", [])) or list(defaults) * 2
    activations = names[index * count : (index + 1) * count]
    if not set(activations) <= _ACTIVATIONS:
        raise CannotRewrite(f"activation {', '.join(sorted(set(activations) - _ACTIVATIONS))}")
    return _Direction(w, r, w_bias, r_bias, peepholes, activations, size)


def _pick(op: Builder, value: ir.Value, index: int, axis: int = 0) -> ir.Value:
    """Return element `index` of `value` along `axis`."""
    return op.shape_op("Squeeze", op.slice(value, axis, index, index + 1), [axis])


def _initial_state(
    op: Builder, node: ir.Node, direction: _Direction, index: int, batch: int, states: int, batch_first: bool
) -> tuple[ir.Value, ...]:
    """Return the first states of direction `index`, each [N, H]; zeros where the model gives none."""
    zeros = np.zeros((batch, direction.hidden_size), known_dtype(node.inputs[0]).numpy())
    given = [operand(node, 5), operand(node, 6)][:states]
    return tuple(
        op.const(zeros) if value is None else _pick(op, value, index, 1 if batch_first else 0) for value in given
    )


def _active(op: Builder, node: ir.Node, steps: int) -> Sequence[ir.Value] | None:
    """Return for each step which sequences [N, 1] have not ended, or None where all have full length."""
    lengths = operand(node, 4)
    if lengths is None:
        return None
    column = op.shape_op("Unsqueeze", op.op("Cast", lengths, to=int(ir.DataType.INT64)), [1])
    return [op.op("Less", op.const(step, np.int64), column) for step in range(steps)]


def _run(
    op: Builder,
    cell: _Cell,
    direction: _Direction,
    inputs: Sequence[ir.Value],
    state: tuple[ir.Value, ...],
    active: Sequence[ir.Value] | None,
    backwards: bool,
) -> tuple[list[ir.Value], tuple[ir.Value, ...]]:
    """Return h after each step, in the order of the steps, and the last state; sequences that ended keep theirs."""
    hidden: list[ir.Value] = [state[0]] * len(inputs)
    for step in reversed(range(len(inputs))) if backwards else range(len(inputs)):
        following = cell(op, direction, inputs[step], state)
        hidden[step] = following[0]
        if active is not None:
            going = active[step]
            hidden[step] = op.op("Where", going, following[0], op.const(0, known_dtype(op.node.inputs[0])))
            following = tuple(op.op("Where", going, new, old) for new, old in zip(following, state, strict=True))
        state = following
    return hidden, state


def _outputs(
    op: Builder, results: Sequence[tuple[list[ir.Value], tuple[ir.Value, ...]]], states: int, batch_first: bool
) -> list[ir.Value]:
    """Return Y [T, D, N, H] and the last states [D, N, H] (Y [N, T, D, H] and [N, D, H] when the batch is first)."""
    state_axis = 1 if batch_first else 0
    sequences = []
    for hidden, _ in results:
        steps = [op.shape_op("Unsqueeze", value, [1, 2] if batch_first else [0, 1]) for value in hidden]
        sequences.append(op.op("Concat", *steps, axis=1 if batch_first else 0))
    outputs = [op.op("Concat", *sequences, axis=2 if batch_first else 1)]
    for index in range(states):
        last = [op.shape_op("Unsqueeze", state[index], [state_axis]) for _, state in results]
        outputs.append(op.op("Concat", *last, axis=state_axis))
    return outputs


def _project(op: Builder, value: ir.Value, weight: ir.Value, bias: ir.Value | None) -> ir.Value:
    """Return value x weight + bias."""
    product = op.op("MatMul", value, weight)
    return product if bias is None else op.op("Add", product, bias)


def _parts(op: Builder, value: ir.Value, count: int, size: int) -> list[ir.Value]:
    """Return the `count` gates in `value` [N, count*H]."""
    return [op.slice(value, 1, index * size, (index + 1) * size) for index in range(count)]


def _rnn_cell(op: Builder, at: _Direction, x: ir.Value, state: tuple[ir.Value, ...]) -> tuple[ir.Value, ...]:
    """H' = f(x W + H R)."""
    total = op.op("Add", _project(op, x, at.w, at.w_bias), _project(op, state[0], at.r, at.r_bias))
    return (op.op(at.activations[0], total),)


def _gru_cell(reset_after: bool) -> _Cell:
    """Return the cell of a GRU; `reset_after`: the reset gate works on H R instead of on H."""

    def cell(op: Builder, at: _Direction, x: ir.Value, state: tuple[ir.Value, ...]) -> tuple[ir.Value, ...]:
        (h,), size = state, at.hidden_size
        x_update, x_reset, x_new = _parts(op, _project(op, x, at.w, at.w_bias), 3, size)
        h_update, h_reset, h_new = _parts(op, _project(op, h, at.r, at.r_bias), 3, size)
        update = op.op(at.activations[0], op.op("Add", x_update, h_update))
        reset = op.op(at.activations[0], op.op("Add", x_reset, h_reset))
        if reset_after:
            inner = op.op("Mul", reset, h_new)
        else:
            bias = op.slice(at.r_bias, 0, 2 * size, 3 * size) if at.r_bias is not None else None
            inner = _project(op, op.op("Mul", reset, h), op.slice(at.r, 1, 2 * size, 3 * size), bias)
        new = op.op(at.activations[1], op.op("Add", x_new, inner))
        return (op.op("Add", new, op.op("Mul", update, op.op("Sub", h, new))),)

    return cell


def _lstm_cell(op: Builder, at: _Direction, x: ir.Value, state: tuple[ir.Value, ...]) -> tuple[ir.Value, ...]:
    """Gates in the order input, output, forget, cell; peepholes in the order input, output, forget."""
    h, c = state
    total = op.op("Add", _project(op, x, at.w, at.w_bias), _project(op, h, at.r, at.r_bias))
    enter, leave, forget, new = _parts(op, total, 4, at.hidden_size)
    gate, squash, emit = at.activations
    if at.peepholes:
        enter = op.op("Add", enter, op.op("Mul", at.peepholes[0], c))
        forget = op.op("Add", forget, op.op("Mul", at.peepholes[2], c))
    kept = op.op("Mul", op.op(gate, forget), c)
    c = op.op("Add", kept, op.op("Mul", op.op(gate, enter), op.op(squash, new)))
    if at.peepholes:
        leave = op.op("Add", leave, op.op("Mul", at.peepholes[1], c))
    return (op.op("Mul", op.op(gate, leave), op.op(emit, c)), c)


def _lstm(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """Unroll an LSTM."""
    if attribute(node, "input_forget", 0):
        raise CannotRewrite("its input and forget gates are coupled")
    return _recurrent(4, ("Sigmoid", "Tanh", "Tanh"), _lstm_cell, 2)(op, node)


def _gru(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """Unroll a GRU."""
    cell = _gru_cell(bool(attribute(node, "linear_before_reset", 0)))
    return _recurrent(3, ("Sigmoid", "Tanh"), cell, 1)(op, node)


REWRITES: dict[tuple[str, str], Rewrite] = {
    ("", "GRU"): _gru,
    ("", "LSTM"): _lstm,
    ("", "RNN"): _recurrent(1, ("Tanh",), _rnn_cell, 1),
}
