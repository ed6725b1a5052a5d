"""A residual block to put gates into, hooks for it, and gates as functions that TVM's own machine can call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Call

from evo_tvm.gates.hook import Hook, Kind
from evo_tvm.passes._gates import DECIDE, KEEP, SELECT, SELECT_TILES, GatePass, gate_operator
from evo_tvm.passes.name_variables import name_variables
from tests.passes._check import RTOL, module, operators, random_inputs, run

SHAPE = (1, 8, 8, 8)
CLASSES, SCALE = 5, 1 / 32
ON, OFF = -1e30, 1e30
_rng = np.random.default_rng(11)
_FIRST, _SECOND = (_rng.uniform(-1, 1, (8, 8, 3, 3)).astype(np.float32) for _ in range(2))
_HEAD = _rng.uniform(-1, 1, (8, CLASSES)).astype(np.float32)
#: The variables of `block`, in order.
NAMES = ("a", "conv", "b", "c", "sum", "y", "mean", "pooled", "logits")
DENSE = ["nn.adaptive_avg_pool2d", "reshape", "matmul", "add", "evo.gate.decide"]
CONV = ["nn.conv2d", "nn.relu", "nn.conv2d", "add", "nn.relu"]
REST = ["nn.adaptive_avg_pool2d", "reshape", "matmul"]


def block(
    first: str = "relu", without: bool = False, mask: np.ndarray | None = None, tiles: np.ndarray | None = None
) -> tvm.IRModule:
    """a = relu(x); b = relu(conv(a)); y = relu(conv(b) + a); logits of y's means.

    without: y = relu(a). mask: (1, 8, 1, 1), b times it. tiles: (1, 1, 8, 8), y where it is 1, else relu(a).
    """

    def body(emit: Any, x: relax.Var) -> Any:
        a = emit(getattr(relax.op.nn if first == "relu" else relax.op, first)(x))
        b = emit(relax.op.nn.relu(emit(relax.op.nn.conv2d(a, relax.const(_FIRST), padding=1))))
        if mask is not None:
            b = emit(relax.op.multiply(b, relax.const(mask.astype(np.float32))))
        c = emit(relax.op.nn.conv2d(b, relax.const(_SECOND), padding=1))
        y = emit(relax.op.nn.relu(a if without else emit(relax.op.add(c, a))))
        if tiles is not None:
            some, others = (relax.const(t.astype(np.float32)) for t in (tiles, 1 - tiles))
            off = emit(relax.op.multiply(emit(relax.op.nn.relu(a)), others))
            y = emit(relax.op.add(emit(relax.op.multiply(y, some)), off))
        pooled = emit(relax.op.reshape(emit(relax.op.nn.adaptive_avg_pool2d(y, (1, 1))), (1, 8)))
        return relax.op.matmul(pooled, relax.const(_HEAD))

    return name_variables(module(body, SHAPE))


def rounding_block(rounds: bool = True) -> tvm.IRModule:
    """As `block`, the input and the weights of the first convolution rounded to bytes; or the weights alone."""
    scale, zero = relax.const(np.float32(SCALE)), relax.const(np.int8(0))
    codes = np.clip(np.round(_FIRST / SCALE), -128, 127).astype(np.int8)

    def body(emit: Any, x: relax.Var) -> Any:
        a = data = emit(relax.op.nn.relu(x))
        if rounds:
            data = emit(relax.op.dequantize(emit(relax.op.quantize(a, scale, zero, 1, "int8")), scale, zero, 1))
        first = emit(relax.op.dequantize(relax.const(codes), scale, zero, 1))
        b = emit(relax.op.nn.relu(emit(relax.op.nn.conv2d(data, first, padding=1))))
        c = emit(relax.op.nn.conv2d(b, relax.const(_SECOND), padding=1))
        y = emit(relax.op.nn.relu(emit(relax.op.add(c, a))))
        pooled = emit(relax.op.reshape(emit(relax.op.nn.adaptive_avg_pool2d(y, (1, 1))), (1, 8)))
        return relax.op.matmul(pooled, relax.const(_HEAD))

    return name_variables(module(body, SHAPE))


def names(mod: tvm.IRModule) -> dict[str, str]:
    """The variables of `block` by `NAMES`."""
    given = [binding.var.name for binding in mod["main"].body.blocks[0].bindings]
    return dict(zip(NAMES, given, strict=True)) if len(given) == len(NAMES) else {}


def hook(
    mod: tvm.IRModule, kind: Kind, site: str, feature: str, outputs: int = 1, hidden: int = 0, threshold: float = 0.25
) -> Hook:
    """A hook with random weights; site and feature as `NAMES` has them, or as they are."""
    named, rng = names(mod), np.random.default_rng(5)
    sizes = (8, hidden, outputs) if hidden else (8, outputs)
    shapes = [shape for i, o in pairwise(sizes) for shape in ((i, o), (o,))]
    made = tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    return Hook(named.get(site, site), kind, named.get(feature, feature), made, threshold)


def written(mod: tvm.IRModule) -> list[str]:
    """Operators of main, gates by their names."""
    values = [binding.value for binding in mod["main"].body.blocks[0].bindings]
    return [gate_operator(v) or v.op.name.removeprefix("relax.") for v in values if isinstance(v, Call)]


def assert_inserts(insert: Callable[[Sequence[Hook]], GatePass], hooks: Sequence[Hook], before: tvm.IRModule) -> Any:
    """The gates are put in, the input stays as it was, the result is well formed, and twice is as once."""
    original = tvm_ffi.structural_hash(before)
    after = insert(hooks)(before)
    assert tvm_ffi.structural_hash(before) == original, "the input was changed"
    relax.analysis.well_formed(after)
    assert written(after) != operators(before)
    assert tvm_ffi.structural_equal(insert(hooks)(after), after), "twice is not as once"
    return after


def assert_gives(gated: tvm.IRModule, wanted: tvm.IRModule, rtol: float = RTOL) -> None:
    """The module with gates gives the same numbers as the other one; `rtol` is of the largest, 0 compares bits."""
    gates_that_run()
    inputs = random_inputs(wanted)
    (got,), (right,) = run(gated, inputs), run(wanted, inputs)
    assert np.abs(right).max() > 0
    if rtol:
        np.testing.assert_allclose(got, right, rtol=0, atol=rtol * np.abs(right).max())
    else:
        np.testing.assert_array_equal(got, right)


@cache
def gates_that_run() -> None:
    """Gates in numpy, as `evo_tvm.passes._gates` describes them. They are the executor's own in a compiled model."""

    def decide(logits: Any, _gate: str, kind: str, threshold: float) -> Any:
        scores = logits.numpy()
        if kind == "exit":
            powers = np.exp(scores - scores.max())
            scores = np.array([[powers.max() / powers.sum()]], np.float32)
        return tvm.runtime.tensor((scores > threshold).astype(np.int32))

    def select(decision: Any, on: Any, off: Any) -> Any:
        return on if decision.numpy().any() else off

    def keep(x: Any, decisions: Any) -> Any:
        values, some = x.numpy(), decisions.numpy().reshape(-1)
        mask = np.repeat(some, -(-values.shape[1] // len(some)))[: values.shape[1]]
        return tvm.runtime.tensor(values * mask.reshape(1, -1, 1, 1).astype(np.float32))

    def select_tiles(decisions: Any, on: Any, *others: Any) -> Any:
        side, off = int(others[-1]), others[0].numpy() if len(others) == 2 else 0
        tiles = np.kron(decisions.numpy(), np.ones((1, 1, side, side), np.int32))
        return tvm.runtime.tensor(np.where(tiles, on.numpy(), off).astype(np.float32))

    for name, function in ((DECIDE, decide), (SELECT, select), (KEEP, keep), (SELECT_TILES, select_tiles)):
        tvm.register_global_func(name, function, override=True)
