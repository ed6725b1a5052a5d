"""What the tests of all passes share: tiny modules, what a pass made of them, and whether the numbers agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Call, Expr

from evo_tvm.passes._rewrite import refusals

Emit = Callable[[Expr], relax.Var]
Body = Callable[..., Any]
Pass = Callable[[tvm.IRModule], tvm.IRModule]

RTOL = 1e-5

_rng = np.random.default_rng(7)


def weights(*shape: int, low: float = -1.0, high: float = 1.0) -> tvm.ir.GenericConst:
    """A float32 constant drawn evenly from [low, high)."""
    return relax.const(_rng.uniform(low, high, shape).astype("float32"))


def module(body: Body, *inputs: Sequence[int] | tuple[Sequence[int], str]) -> tvm.IRModule:
    """A module whose main is `body(emit, *inputs)`; an input is a float32 shape, or (shape, dtype)."""
    params = []
    for place, given in enumerate(inputs):
        shape, dtype = given if given and isinstance(given[-1], str) else (given, "float32")
        params.append(relax.Var(f"x{place}", relax.TensorType(list(shape), dtype)))  # type: ignore[arg-type]
    builder = relax.BlockBuilder()
    with builder.function("main", params):
        with builder.dataflow():
            output = builder.emit_output(body(builder.emit, *params))
        builder.emit_func_output(output)
    return builder.get()


def operators(mod: tvm.IRModule) -> list[str]:
    """The operators of main, in order, without "relax."; bindings of other things by their class."""
    values = [binding.value for block in mod["main"].body.blocks for binding in block.bindings]
    return [v.op.name.removeprefix("relax.") if isinstance(v, Call) else type(v).__name__ for v in values]


def calls(mod: tvm.IRModule, name: str) -> list[Call]:
    """The calls of operator `name` (without "relax.") in main."""
    values = [binding.value for block in mod["main"].body.blocks for binding in block.bindings]
    return [v for v in values if isinstance(v, Call) and v.op.name == f"relax.{name}"]


def run(mod: tvm.IRModule, inputs: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    """The outputs of main, compiled by TVM as it is, unoptimized: that takes a fifth of the time."""
    target = tvm.target.Target({"kind": "llvm", "opt-level": 0})
    executable = relax.build(relax.transform.DecomposeOpsForInference()(mod), target)
    outputs = relax.VirtualMachine(executable, tvm.cpu())["main"](*(tvm.runtime.tensor(x) for x in inputs))
    return [o.numpy() for o in outputs] if not hasattr(outputs, "numpy") else [outputs.numpy()]


def random_inputs(mod: tvm.IRModule) -> list[np.ndarray[Any, Any]]:
    """An array for each parameter of main: floats from [-2, 2), integers from [0, 100)."""
    arrays = []
    for param in mod["main"].params:
        shape, dtype = [int(dim) for dim in param.ty.shape], str(param.ty.dtype)
        drawn = _rng.uniform(-2, 2, shape) if dtype.startswith("float") else _rng.integers(0, 100, shape)
        arrays.append(drawn.astype(dtype))
    return arrays


def assert_rewrites(
    rewrite: Pass, before: tvm.IRModule, expected: Sequence[str], rtol: float = RTOL, numbers: bool = True
) -> tvm.IRModule:
    """`rewrite` leaves `expected` operators, its input and a second run unchanged, and the numbers within `rtol`.

    `rtol` is relative to the largest magnitude of each output; 0 compares exactly. Gives the new module.
    """
    original = tvm_ffi.structural_hash(before)
    after = rewrite(before)
    assert operators(after) == list(expected)
    assert tvm_ffi.structural_hash(before) == original, "the input was changed"
    relax.analysis.well_formed(after)
    again = rewrite(after)
    assert tvm_ffi.structural_equal(again, after), f"twice is not as once: {operators(again)}"
    if numbers:
        assert_same_numbers(before, after, rtol)
    return after


def assert_same_numbers(before: tvm.IRModule, after: tvm.IRModule, rtol: float = RTOL) -> None:
    """Both modules give the same outputs for the same random inputs, and those depend on the inputs."""
    inputs = random_inputs(before)
    for wanted, got in zip(run(before, inputs), run(after, inputs), strict=True):
        assert wanted.dtype == got.dtype
        if rtol == 0 or not wanted.dtype.name.startswith("float"):
            np.testing.assert_array_equal(got, wanted)
        else:
            np.testing.assert_allclose(got, wanted, rtol=0, atol=rtol * np.abs(wanted).max())


def assert_leaves(rewrite: Pass, before: tvm.IRModule, reason: str | None = None) -> None:
    """`rewrite` changes nothing, and says `reason` (None: it is not its pattern, so it says nothing)."""
    with refusals() as found:
        after = rewrite(before)
    assert tvm_ffi.structural_equal(after, before), f"became {operators(after)}"
    assert [refusal.reason for refusal in found] == ([] if reason is None else [reason])
    assert all(refusal.pass_name == str(rewrite.info.name) for refusal in found)  # type: ignore[attr-defined]
