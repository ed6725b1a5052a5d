"""Quantized dense layers: integer sums, bit by bit those of numpy and of ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import evo_tvm
from evo_tvm.graph import Codes, Graph, Group, Op, Value, real
from evo_tvm.plan.lower_integer import lower_integer
from evo_tvm.target import host
from tests.kernels._bytes import TARGETS
from tests.onnx_builder import Builder
from tests.onnx_runtime import exact_session
from tests.plan.graphs import kinds

#: A power of two: dividing by it is exact, so that all engines quantize the input to the same bytes.
INPUT_SCALE = np.float32(1 / 32)


@dataclass(frozen=True)
class Layer:
    """x => bytes around `zero` => product with `codes` * `scale` => + bias => bytes of `result` (scale, zero point).

    kind: "Gemm", "transposed" (Gemm with transB) or "MatMul". bias: integers, of the scale of the sums.
    """

    x: np.ndarray
    codes: np.ndarray
    scale: np.ndarray
    bias: np.ndarray | None
    zero: int = 120
    kind: str = "Gemm"
    result: tuple[np.float32, int] = (np.float32(1), 77)

    def model(self) -> onnx.ModelProto:
        b = Builder()
        x = b.input(*self.x.shape)

        def through_bytes(value: str, scale: np.float32, zero: int) -> str:
            at = b.constant(scale), b.constant(zero, "uint8")
            return b.node("DequantizeLinear", b.node("QuantizeLinear", value, *at), *at)

        def constant(codes: np.ndarray, scale: np.ndarray, axis: int) -> str:
            dtype = str(codes.dtype)
            operands = b.constant(codes, dtype), b.constant(scale), b.constant(np.zeros(scale.shape), dtype)
            return b.node("DequantizeLinear", *operands, axis=axis)

        data = through_bytes(x, INPUT_SCALE, self.zero)
        added = [] if self.bias is None else [constant(self.bias, self.scale * INPUT_SCALE, 0)]
        if self.kind == "transposed":
            y = b.node("Gemm", data, constant(np.ascontiguousarray(self.codes.T), self.scale, 0), *added, transB=1)
        elif self.kind == "Gemm":
            y = b.node("Gemm", data, constant(self.codes, self.scale, 1), *added)
        else:
            y = b.node("MatMul", data, constant(self.codes, self.scale, 1))
            y = b.node("Add", *added, y) if added else y
        b.outputs.append(through_bytes(y, *self.result))
        return b.model()

    def expected(self) -> np.ndarray:
        x = np.clip(np.rint(self.x / INPUT_SCALE) + self.zero, 0, 255).astype(np.int64) - self.zero
        sums = x @ self.codes.astype(np.int64) + (0 if self.bias is None else self.bias)
        scale, zero = self.result
        codes = np.clip(np.rint(sums.astype(np.float32) * (self.scale * INPUT_SCALE / scale)) + zero, 0, 255)
        return ((codes - zero) * scale).astype(np.float32)

    def check(self, tmp_path: Path, onnx_runtime: bool = True, threads: int = 1, target: str = "host") -> None:
        model = self.model()
        artifact = evo_tvm.compile(model, target, num_threads=threads)
        assert [e["workload"].split()[-1] for e in artifact.manifest.plan] == ["uint8"]
        artifact.save(tmp_path / "model.evo")
        name = model.graph.input[0].name
        with evo_tvm.load(tmp_path / "model.evo") as module:
            (got,) = module.run({name: self.x}).values()
        np.testing.assert_array_equal(got, self.expected())
        if onnx_runtime:
            session = exact_session(model)
            np.testing.assert_array_equal(got, session.run(None, {name: self.x})[0])


def layer(shape: tuple[int, ...], depth: int, width: int, per_channel: bool = True, **kwargs: Any) -> Layer:
    """Random. With larger weights, ONNX Runtime's sums saturate on CPUs that have no dot products of bytes."""
    rng = np.random.default_rng(7)
    made = Layer(
        x=(rng.standard_normal((*shape, depth)) * 1.5).astype(np.float32),
        codes=rng.integers(-64, 65, (depth, width)).astype(np.int8),
        scale=np.asarray(rng.uniform(0.001, 0.01, width if per_channel else ()), np.float32),
        bias=rng.integers(-3000, 3000, width).astype(np.int32) if per_channel else None,
        result=(np.float32(0.006 * np.sqrt(depth)), 77),
    )
    return replace(made, **kwargs)


@pytest.mark.parametrize(
    ("rows", "depth", "width"),
    [
        *((1, 1, 1), (1, 4, 10), (1, 7, 17), (1, 513, 10), (1, 512, 1000)),
        *((3, 1, 1), (3, 7, 10), (3, 64, 1000), (3, 513, 17)),
        *((13, 2048, 70), (197, 4, 17), (197, 7, 1), (197, 513, 33), (197, 192, 250)),
    ],
)
def test_shapes(rows: int, depth: int, width: int, tmp_path: Path) -> None:
    layer((rows,), depth, width).check(tmp_path)


@pytest.mark.parametrize("kind", ["Gemm", "transposed", "MatMul"])
@pytest.mark.parametrize(("zero", "per_channel"), [(0, True), (255, False), (121, True)])
def test_forms(kind: str, zero: int, per_channel: bool, tmp_path: Path) -> None:
    """With a bias where there is a scale for each column; ONNX Runtime rounds that behind a MatMul otherwise."""
    made = layer((5,), 36, 35, per_channel, kind=kind, zero=zero)
    made.check(tmp_path, onnx_runtime=kind != "MatMul" or made.bias is None)


@pytest.mark.parametrize("depth", [20, 22])
def test_batches_are_rows(depth: int, tmp_path: Path) -> None:
    layer((2, 3), depth, 34, kind="MatMul", bias=None).check(tmp_path)


@pytest.mark.parametrize(("rows", "width"), [(197, 250), (1000, 33)])
def test_on_threads(rows: int, width: int, tmp_path: Path) -> None:
    """Shared out by panels, and by rows."""
    layer((rows,), 65, width).check(tmp_path, threads=2)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rows", [1, 7])
def test_other_targets(target: str, rows: int, tmp_path: Path) -> None:
    layer((rows,), 30, 50).check(tmp_path, onnx_runtime=False, target=target)


@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("byte", [0, 255])
def test_extremes(weight: int, byte: int, tmp_path: Path) -> None:
    """All terms as large as they can be: nothing saturates on the way."""
    made = layer((2,), 516, 18, zero=128)
    made = replace(
        made,
        x=np.full_like(made.x, -100 if byte == 0 else 100),
        codes=np.full_like(made.codes, weight),
        result=(np.float32(516 * 128 * 128 * float(made.scale.max() * INPUT_SCALE) / 100), 128),
    )
    assert np.unique(made.expected()).size > 10
    made.check(tmp_path, onnx_runtime=False)


@pytest.mark.parametrize(("depth", "dtype"), [(36, "int8"), (33, "uint8")])
def test_quantized_at_run_time(depth: int, dtype: str, tmp_path: Path) -> None:
    """DynamicQuantizeLinear => MatMulInteger => Cast => Mul => Add."""
    b = Builder(seed=3)
    x, middle = b.input(1, 19, depth), 128 if dtype == "uint8" else 0
    codes = b.rng.integers(-127, 128, (depth, 35)) + middle
    narrow = b.node("DynamicQuantizeLinear", x, outputs=3)
    data, scale, zero = b.nodes[-1].output
    assert data == narrow
    sums = b.node("MatMulInteger", data, b.constant(codes, dtype), zero, b.constant(middle, dtype))
    factor = b.node("Mul", scale, b.constant(b.rng.uniform(0.001, 0.01, 35)))
    b.outputs.append(b.node("Add", b.node("Mul", b.node("Cast", sums, to=1), factor), b.weights(35)))
    model = b.model()
    artifact = evo_tvm.compile(model)
    assert [e["workload"].split()[-1] for e in artifact.manifest.plan] == ["uint8"]
    artifact.save(tmp_path / "model.evo")
    session = exact_session(model)
    with evo_tvm.load(tmp_path / "model.evo") as module:
        (got,) = module.run(b.inputs).values()
    np.testing.assert_allclose(got, session.run(None, b.inputs)[0], rtol=1e-5, atol=1e-5)


def graph_of(codes: Codes | None, bytes_dtype: str = "uint8", scale: float = 0.1) -> Graph:
    """dequantize => dense => an addition for each column."""
    data = np.ones((8, 3), np.float32) if codes is None else real(codes)
    values = [
        Value("q", (2, data.shape[0]), bytes_dtype),
        Value("x", (2, data.shape[0]), "float32"),
        Value("w", data.shape, "float32", data, codes=codes),
        Value("y", (2, data.shape[1]), "float32"),
        Value("b", (data.shape[1],), "float32", np.arange(data.shape[1], dtype=np.float32)),
        Value("z", (2, data.shape[1]), "float32"),
    ]
    groups = (
        Group("x", ("q",), ("x",), (Op("dequantize", (0,), {"scale": scale, "zero_point": 3}),)),
        Group("y", ("x", "w"), ("y",), (Op("dense", (0, 1)),)),
        Group("z", ("b", "y"), ("z",), (Op("add", (0, 1)),)),
    )
    return Graph({v.name: v for v in values}, groups, ("q",), ("z",))


def codes_of(depth: int = 8, dtype: str = "int8", zero: int = 0, axis: int = 1, scales: int = 3) -> Codes:
    codes = np.full((depth, 3), 100, dtype)
    return Codes(codes, np.full(scales, 0.5, np.float32), np.full(scales, zero, dtype), axis)


def test_the_bias_becomes_part_of_the_sums() -> None:
    graph, stayed = lower_integer(graph_of(codes_of()), host())
    assert stayed == () and kinds(graph) == ["dequantize", "dense", "add", "rescale"]
    start = graph.values[graph.groups[2].inputs[1]]
    np.testing.assert_array_equal(start.data.reshape(-1), np.rint(np.arange(3) / 0.05) - 3 * 800)
    assert start.dtype == "int32" and graph.values[graph.groups[1].inputs[0]].name == "q"


def test_weights_around_128() -> None:
    graph, stayed = lower_integer(graph_of(codes_of(dtype="uint8", zero=128)), host())
    assert stayed == ()
    np.testing.assert_array_equal(graph.values[graph.groups[1].inputs[1]].data, np.full((8, 3), -28, np.int8))


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (graph_of(None), "float"),
        (graph_of(codes_of(), "int8"), "int8"),
        (graph_of(codes_of(dtype="uint8", zero=100)), "asymmetric"),
        (graph_of(codes_of(axis=0, scales=8)), "several scales"),
        (graph_of(codes_of(depth=90000)), "32 bits"),
        (graph_of(codes_of(), scale=1e-10), "32 bits"),
    ],
)
def test_what_stays_float(graph: Graph, reason: str) -> None:
    after, (stayed,) = lower_integer(graph, host())
    assert after is graph and stayed.operator == "dense" and reason in stayed.reason
