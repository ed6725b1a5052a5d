"""Each peer gives ONNX's answer under ONNX's names, and says so where it cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from evo_tvm.bench.compare import worst_difference
from evo_tvm.bench.graph import Graph, RandomWeights
from evo_tvm.bench.inputs import Array, random_inputs
from evo_tvm.bench.peers import PEERS, Session, face, mnn, ncnn
from evo_tvm.bench.peers.prepare_model import input_specs, with_input_shapes
from evo_tvm.errors import EvoError, MissingExtraError, ModelError

CONVERTING = ("ncnn", "mnn")


def installed(name: str) -> str:
    """The peer's name; a peer that is not installed skips the test."""
    try:
        PEERS[name].check_installed()
    except MissingExtraError as error:
        pytest.skip(error.what)
    return name


def small_network(batch: int, normalized: bool = False) -> onnx.ModelProto:
    """Two outputs of odd sizes, one of them an image; with work on the input itself, or a convolution first."""
    g = Graph("small", RandomWeights())
    x = g.input("image with a space", (batch, 3, 13, 17))
    x = g.normalize(x, 0.5, 0.25) if normalized else x
    x = g.relu(g.batch_norm(g.conv(x, "conv", 10, 3, stride=2), "bn"))
    x = g.relu6(g.conv(x, "depthwise", 10, 3, groups=10))
    return g.model({"scores": g.classifier(x, "fc", 7), "features/0": g.conv(x, "head", 5, 1, bias=True)})


def old_softmax() -> onnx.ModelProto:
    """A softmax of opset 9 without an axis: it normalizes all that follows the batch."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 6, 1, 1)) for name in "xy")
    graph = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"])], "old", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=8)


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def expected(model: onnx.ModelProto, inputs: dict[str, Array]) -> dict[str, Array]:
    names = [value.name for value in model.graph.output]
    return dict(zip(names, ReferenceEvaluator(model).run(None, inputs), strict=True))


def check(session: Session, model: onnx.ModelProto, seed: int) -> None:
    """The session's answer is that of ONNX's reference implementation."""
    inputs = random_inputs(input_specs(model), seed)
    limit = 1e-4 if session.precision == "f32" else 5e-2
    assert worst_difference(session.run(inputs), expected(model, inputs)) <= limit


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize(("batch", "normalized", "threads"), [(1, False, 1), (3, False, 2), (2, True, 1)])
def test_a_peer_gives_the_answer_of_onnx(
    name: str, batch: int, normalized: bool, threads: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = small_network(batch, normalized)
    session = PEERS[installed(name)].open(save(model, tmp_path), threads, tmp_path)
    check(session, model, seed=0)
    check(session, model, seed=1)
    assert PEERS[name].fp32 is False or session.precision == "f32"
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", PEERS)
def test_an_old_softmax_keeps_its_meaning(name: str, tmp_path: Path) -> None:
    model = old_softmax()
    session = PEERS[installed(name)].open(save(model, tmp_path), 1, tmp_path)
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(1, 6, 1, 1)
    y = np.exp(x) / np.exp(x).sum()
    np.testing.assert_allclose(session.run({"x": x})["y"], y, rtol=1e-4 if session.precision == "f32" else 5e-2)


@pytest.mark.parametrize("name", PEERS)
def test_a_batch_of_rows_without_a_convolution(name: str, tmp_path: Path) -> None:
    g = Graph("dense", RandomWeights())
    x = g.input("x", (3, 16))
    x = g.op("Gemm", [x.name, g.parameter("fc.weight", (7, 16))], 7, transB=1)
    model = g.model({"y": g.relu(x)})
    check(PEERS[installed(name)].open(save(model, tmp_path), 1, tmp_path), model, seed=0)


@pytest.mark.parametrize("name", PEERS)
def test_a_file_that_is_no_model_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"does not load the model|this is no ONNX file"):
        PEERS[installed(name)].open(path, 1, tmp_path)


def test_inputs_that_ncnn_does_not_take_are_refused(free_onnx: Path, tmp_path: Path) -> None:
    name = installed("ncnn")
    x, y = (helper.make_tensor_value_info(n, TensorProto.INT64, (1, 4)) for n in "xy")
    model = helper.make_model(helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "ints", [x], [y]))
    with pytest.raises(ModelError, match="the input 'x' is int64, not float32"):
        PEERS[name].open(save(model, tmp_path), 1, tmp_path)
    with pytest.raises(ModelError, match="has free sizes"):
        PEERS[name].open(free_onnx, 1, tmp_path)


@pytest.mark.parametrize("name", CONVERTING)
def test_a_model_is_converted_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_network(1)
    path = save(model, tmp_path)
    PEERS[installed(name)].open(path, 1, tmp_path)

    def never(*arguments: object) -> str:
        raise AssertionError("converted again")

    monkeypatch.setattr({"ncnn": ncnn, "mnn": mnn}[name], "convert", never)
    check(PEERS[name].open(path, 2, tmp_path), model, seed=0)
    with pytest.raises(AssertionError, match="converted again"):
        PEERS[name].open(save(small_network(2), tmp_path), 1, tmp_path / "..")


def test_a_converter_that_crashes_is_an_error_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnn, "CONVERT", "import os; os.kill(os.getpid(), 11)")
    with pytest.raises(ModelError, match="MNN does not convert the model: the converter died of signal 11"):
        PEERS[installed("mnn")].open(save(small_network(1), tmp_path), 1, tmp_path)


def test_a_converter_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face, "CONVERTING_S", 0.2)
    monkeypatch.setattr(mnn, "CONVERT", "import time; time.sleep(60)")
    with pytest.raises(ModelError, match=r"no end after 0\.2 s"):
        PEERS[installed("mnn")].open(save(small_network(1), tmp_path), 1, tmp_path)


def test_without_the_converter_ncnn_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install --no-deps pnnx=="):
        ncnn.pnnx_path()


def test_native_output_does_not_reach_ours(capfd: pytest.CaptureFixture[str]) -> None:
    import os

    with face.native_output() as said:
        os.write(1, b"hello ")
        os.write(2, b"there")
        said.seek(0)
        assert said.read() == b"hello there"
    os.write(1, b"ours")
    assert capfd.readouterr().out == "ours"


def test_peers_get_a_model_of_fixed_shapes(free_onnx: Path, tmp_path: Path) -> None:
    free = onnx.load(free_onnx)
    (spec,) = input_specs(free)
    shape = tuple(size or 2 for size in spec.shape)
    with_input_shapes(free_onnx, {spec.name: shape}, tmp_path / "fixed.onnx")
    fixed = onnx.load(tmp_path / "fixed.onnx")
    assert [found.shape for found in input_specs(fixed)] == [shape]
    inputs = random_inputs(input_specs(fixed))
    assert worst_difference(expected(fixed, inputs), expected(free, inputs)) == 0.0


def test_a_reason_names_the_peer_and_the_way_out(tmp_path: Path) -> None:
    error: EvoError = face.refusal("ncnn", "ncnn", "load", "\nfirst\n\nlayer X not exists\n", tmp_path / "m.onnx")
    assert "ncnn does not load the model: first / layer X not exists" in str(error) and '"ncnn"' in str(error)
    assert "gives no reason" in str(face.refusal("MNN", "mnn", "convert", "", tmp_path))
