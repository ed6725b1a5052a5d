"""Models of the zoo are valid, and what they answer depends on what they are asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from evo_tvm.bench import light, zoo
from evo_tvm.bench.compare import compare
from evo_tvm.bench.graph import CheckpointWeights, Graph, RandomWeights
from evo_tvm.errors import UsageError

# Multiply-accumulates in millions at 224x224, as torchvision counts them; for vgg11 with the one dense layer it has
# here, for efficientnet_lite0 as the shapes of its checkpoint give, for vit as those of DeiT-Ti give.
MEGA_MACS = {
    "resnet18": 1814,
    "resnet34": 3664,
    "resnet50": 4089,
    "mobilenetv2": 301,
    "mobilenetv3": 217,
    "densenet121": 2834,
    "vgg11": 7486,
    "efficientnet_lite0": 385,
    "vit": 1254,
}
# Weights in millions, without the running statistics, from the same sources.
MEGA_PARAMETERS = {
    "resnet18": 11.69,
    "resnet34": 21.80,
    "resnet50": 25.56,
    "mobilenetv2": 3.50,
    "mobilenetv3": 5.48,
    "densenet121": 7.98,
    "vgg11": 9.74,
    "efficientnet_lite0": 4.65,
    "vit": 5.717,
}


def run(model: onnx.ModelProto, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The first output of the model, by ONNX Runtime on one thread."""
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    output: npt.NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: x})[0]
    return output


def images(batch: int, size: int = 224) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).random((batch, 3, size, size), dtype=np.float32)


def sensitivity(y: npt.NDArray[np.float32]) -> float:
    """How far the answers to the first two images of a batch lie apart, as a share of the largest of the first."""
    assert np.isfinite(y).all()
    return float(np.abs(y[0] - y[1]).max() / np.abs(y[0]).max())


def macs(model: onnx.ModelProto) -> int:
    """Multiply-accumulates of the convolutions, dense layers and matrix products."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*inferred.value_info, *inferred.output)
    }
    weights = {tensor.name: tensor.dims for tensor in inferred.initializer}
    terms = {"Conv": lambda node: weights[node.input[1]][1:], "MatMul": lambda node: shapes[node.input[0]][-1:]}
    terms["Gemm"] = terms["Conv"]
    return sum(
        int(np.prod(shapes[node.output[0]]) * np.prod(terms[node.op_type](node)))
        for node in inferred.node
        if node.op_type in terms
    )


@pytest.mark.parametrize("name", MEGA_MACS)
def test_an_architecture_has_the_cost_and_the_weights_of_its_paper(name: str) -> None:
    model = zoo.build(name)
    parameters = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer if ".running_" not in tensor.name)
    assert macs(model) / 1e6 == pytest.approx(MEGA_MACS[name], rel=0.01)
    assert parameters / 1e6 == pytest.approx(MEGA_PARAMETERS[name], rel=0.002)


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenetv2", "mobilenetv3", "densenet121", "vgg11", "efficientnet_lite0"]
)
def test_the_answer_depends_on_the_image(name: str) -> None:
    y = run(zoo.build(name, batch=2, size=64), images(2, 64))
    assert y.shape == (2, 1000)
    assert sensitivity(y) > 1e-2


def test_the_transformer_tells_images_apart_in_a_batch_and_alone() -> None:
    x = images(2)
    y = run(zoo.build("vit", batch=2), x)
    assert y.shape == (2, 1000)
    assert sensitivity(y) > 1e-2
    np.testing.assert_allclose(run(zoo.build("vit"), x[1:])[0], y[1], rtol=1e-4, atol=1e-4)


def test_the_detector_gives_boxes_and_scores_at_three_strides() -> None:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(zoo.build("yolo", 2, 64).SerializeToString(), providers=["CPUExecutionProvider"])
    found = dict(zip((v.name for v in session.get_outputs()), session.run(None, {"input": images(2, 64)}), strict=True))
    assert {name: y.shape for name, y in found.items()} == {
        f"{part}_{stride}": (2, channels, 64 // stride, 64 // stride)
        for stride in (8, 16, 32)
        for part, channels in (("boxes", 64), ("scores", 80))
    }
    assert all(sensitivity(y) > 1e-2 for y in found.values())
    assert all(0 < y.min() and y.max() < 1 for name, y in found.items() if name.startswith("scores"))
    assert zoo.build("yolo").graph.input[0].type.tensor_type.shape.dim[2].dim_value == 320


@pytest.mark.parametrize(("name", "size"), [("yolo", 96), ("vit", 224)])
def test_the_detector_and_the_transformer_compile_and_agree(name: str, size: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    onnx.save(zoo.build(name, size=size), path)
    (peer,) = compare(path, rounds=1).peers
    assert peer.difference <= 1e-4


def test_weights_are_those_of_the_seed() -> None:
    first, again, other = (zoo.build("mobilenetv2", weights=RandomWeights(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_batch_normalizations_are_left_in() -> None:
    assert sum(node.op_type == "BatchNormalization" for node in zoo.build("resnet18").graph.node) == 20


def test_a_batch_may_be_left_open() -> None:
    architecture = zoo.cifar_resnet(1, 10, mean=0.3, deviation=0.4)
    model = zoo.build_graph("small", architecture, ("N", 1, 28, 28), RandomWeights())
    x = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)
    y = run(model, x)
    assert y.shape == (3, 10)
    assert sensitivity(y) > 1e-2
    np.testing.assert_allclose(run(model, x[1:2])[0], y[1], rtol=1e-5, atol=1e-5)


def test_a_checkpoint_that_does_not_fit_is_refused() -> None:
    weights = CheckpointWeights({"conv.weight": np.zeros((8, 3, 3, 3))})
    graph = Graph("unfit", weights)
    x = graph.input("input", (1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"'conv.weight' has shape \(8, 3, 3, 3\), expected \(16, 3, 3, 3\)"):
        graph.conv(x, "conv", 16, 3)
    with pytest.raises(KeyError, match=r"no tensor 'conv2\.weight'"):
        graph.conv(x, "conv2", 16, 3)


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "inception_v1"])
def test_a_light_model_tells_images_apart(name: str) -> None:
    x = images(2)
    y = run(light.light(name, batch=2), x)
    assert sensitivity(y) > 1e-2
    assert y.max() < 0.9, "the softmax is saturated"
    np.testing.assert_allclose(run(light.light(name), x[1:])[0], y[1], rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", light.NAMES)
@pytest.mark.parametrize("batch", [None, 4])
def test_every_light_model_runs(name: str, batch: int | None) -> None:
    model = light.light(name, batch)
    x = images(batch or 2)
    y = run(model, x) if batch else np.concatenate([run(model, x[i : i + 1]) for i in range(2)])
    assert y.shape[:2] == (len(x), 1000)
    assert sensitivity(y) > 1e-3


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="resnet18"):
        zoo.build("resnet19")
    with pytest.raises(UsageError, match="squeezenet"):
        light.light("resnet18")
