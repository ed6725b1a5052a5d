"""The whole way from ONNX to Relax, run by TVM's own virtual machine as the slow reference."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from evo_tvm.errors import ModelError
from evo_tvm.frontend import Imported, import_onnx
from tests.frontend._models import constant, evaluate, parse, random_inputs


def run(imported: Imported, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of an imported module."""
    import tvm
    from tvm import relax

    executable = tvm.compile(imported.module, target=tvm.target.Target({"kind": "llvm"}))
    machine = relax.VirtualMachine(executable, tvm.cpu())
    results = machine["main"](*(tvm.runtime.tensor(inputs[spec.name]) for spec in imported.inputs))
    results = [results] if isinstance(results, tvm.runtime.Tensor) else list(results)
    return [tensor.numpy() for tensor in results]


def bindings(imported: Imported) -> list[tuple[str, str]]:
    """Name and operator of each binding of main."""
    blocks = imported.module["main"].body.blocks
    assert len(blocks) == 1
    return [(b.var.name, getattr(getattr(b.value, "op", None), "name", "")) for b in blocks[0].bindings]


def test_a_small_network_gives_the_right_numbers(small_onnx: Path) -> None:
    imported = import_onnx(small_onnx)
    assert [str(spec) for spec in imported.inputs] == ["image: float32[1x3x16x16]"]
    assert [str(spec) for spec in imported.outputs] == ["scores: float32[1x10]"]
    model = onnx.load(small_onnx)
    inputs = random_inputs(model)
    np.testing.assert_allclose(run(imported, inputs)[0], evaluate(model, inputs)[0], rtol=1e-4, atol=1e-5)


def test_variables_have_the_names_of_the_nodes(small_onnx: Path) -> None:
    names = [name for name, _ in bindings(import_onnx(small_onnx))]
    assert [name for name in dict.fromkeys(names) if name != "gv"] == ["conv", "relu", "pool", "flatten", "dense"]


def test_the_parameters_of_main_are_the_inputs_in_order() -> None:
    model = parse("(float[2] b, float[2] a) => (float[2] y, float[2] z) { y = Sub(b, a) z = Relu(a) }")
    imported = import_onnx(model)
    assert [spec.name for spec in imported.inputs] == ["b", "a"]
    assert [spec.name for spec in imported.outputs] == ["y", "z"]
    inputs = random_inputs(model)
    for got, expected in zip(run(imported, inputs), evaluate(model, inputs), strict=True):
        np.testing.assert_allclose(got, expected)


def test_free_dimensions_are_given_by_name(free_onnx: Path) -> None:
    imported = import_onnx(free_onnx, {"image": (2, 3, 16, 16)})
    assert imported.outputs[0].shape == (2, 10)


def test_relu6_is_one_clip() -> None:
    model = parse("(float[4] x) => (float[4] y) { y = Clip(x, low, high) }")
    model.graph.initializer.extend([constant("low", 0, "float32"), constant("high", 6, "float32")])
    assert [operator for _, operator in bindings(import_onnx(model)) if operator] == ["relax.clip"]


@pytest.mark.parametrize("dtype", ["int64", "float64", "float16", "int8"])
def test_weights_keep_their_type(dtype: str) -> None:
    kind = {"int64": "int64", "float64": "double", "float16": "float16", "int8": "int8"}[dtype]
    model = parse(f"({kind}[3] x) => ({kind}[3] y) {{ y = Add(x, w) }}")
    model.graph.initializer.append(constant("w", [1, 2, 3], dtype))
    imported = import_onnx(model)
    assert imported.outputs[0].dtype == dtype
    inputs = {"x": np.array([4, 5, 6], dtype)}
    np.testing.assert_array_equal(run(imported, inputs)[0], np.array([5, 7, 9], dtype))


def test_the_model_handed_over_is_not_changed() -> None:
    model = parse("(float[N,2] x) => (float[N,2] y) { s = Shape(x) r = Reshape(x, s) y = Relu(r) }")
    before = model.SerializeToString(deterministic=True)
    import_onnx(model, {"x": (3, 2)})
    assert model.SerializeToString(deterministic=True) == before


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str], small_onnx: Path) -> None:
    import_onnx(small_onnx)
    assert capfd.readouterr() == ("", "")


def test_outputs_that_are_no_tensors() -> None:
    model = parse("(float[2] x) => (seq(float[2]) y) { y = SequenceConstruct(x, x) }")
    with pytest.raises(ModelError, match="output 'y' is not a tensor; only tensors can be compiled"):
        import_onnx(model)


def test_inputs_that_hold_strings() -> None:
    model = parse("(string[2] x) => (string[2] y) { y = Identity(x) }")
    with pytest.raises(ModelError, match="input 'x' holds strings; only numbers and booleans can be compiled"):
        import_onnx(model)


def test_shapes_that_depend_on_values() -> None:
    model = parse("(float[3] x) => (int64[1,n] y) { y = NonZero(x) }")
    with pytest.raises(ModelError, match="output 'y' has a shape that depends on the input's values"):
        import_onnx(model)


@pytest.mark.parametrize("kind", ["float8e5m2", "int4"])
def test_element_types_that_only_store_numbers(kind: str) -> None:
    model = parse(f"({kind}[3] x) => (float[3] y) {{ y = Cast<to = 1>(x) }}")
    with pytest.raises(
        ModelError, match=rf"element type without kernels: 'x' \({kind}\)\nExport the model with float32"
    ):
        import_onnx(model)


def test_weights_of_four_bits_are_unpacked() -> None:
    model = parse("(float[4] x) => (float[4] y) { w = DequantizeLinear(q, s) y = Mul(x, w) }")
    model.graph.initializer.append(onnx.helper.make_tensor("q", onnx.TensorProto.INT4, [4], [-8, -1, 0, 7]))
    model.graph.initializer.append(constant("s", 0.5, "float32"))
    imported = import_onnx(model)
    np.testing.assert_array_equal(run(imported, {"x": np.full(4, 2, np.float32)})[0], [-8, -1, 0, 7])


@pytest.mark.parametrize("operator", ["Gather", "GatherElements", "GatherND"])
def test_indices_may_be_negative(operator: str) -> None:
    model = parse(
        f"(float[3,4] x, int64[2,{2 if operator == 'GatherND' else 4}] i) => (float[a,b] y) {{ y = {operator}(x, i) }}"
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    inputs = {"x": np.arange(12, dtype=np.float32).reshape(3, 4), "i": np.array([[-1, 1, 0, -2], [1, -3, 2, 0]])}
    inputs["i"] = inputs["i"][:, :2] if operator == "GatherND" else inputs["i"]
    imported = import_onnx(model)
    assert "relax.shape_of" not in [name for _, name in bindings(imported)]
    np.testing.assert_array_equal(run(imported, inputs)[0], evaluate(model, inputs)[0])


@pytest.mark.parametrize(
    "path", [Path("nowhere") / "model.onnx", "nowhere/model.onnx", os.fspath("nowhere/model.onnx")]
)
def test_paths_of_every_kind(path: str | Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        import_onnx(path)
