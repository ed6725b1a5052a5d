"""Scores against the same computed with numpy, how the metric is chosen, and memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from evo_tvm.errors import InputError, UsageError
from evo_tvm.quantize.accuracy_score import make_scorer
from evo_tvm.quantize.calibration_data import CalibrationData, ModelInput, open_calibration
from tests.quantize._models import feeds, ort_runner, residual_model

IMAGES = feeds((1, 3, 8, 8), 24)


def classifier(off: float, batch: int = 1) -> onnx.ModelProto:
    """A model that takes several classes: the scores of each have the mean 0, the first is `off` deviations higher."""
    run, model = ort_runner(residual_model()), residual_model(batch=batch)
    scores = np.concatenate([run(feed)["scores"] for feed in IMAGES])
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "fc.bias")
    moved = numpy_helper.to_array(bias) - scores.mean(axis=0) + off * scores.std() * np.eye(5, dtype=np.float32)[0]
    bias.CopyFrom(numpy_helper.from_array(moved.astype(np.float32), "fc.bias"))
    return model


RIGHT, WRONG = classifier(0), classifier(0.02)


def graph(model: onnx.ModelProto) -> ir.Model:
    return ir.serde.deserialize_model(model)


def images(batch: int | None = 1, source: object = IMAGES) -> CalibrationData:
    return open_calibration(source, [ModelInput("x", (batch, 3, 8, 8), "float32")])  # type: ignore[arg-type]


def outputs(model: onnx.ModelProto) -> np.ndarray:
    run = ort_runner(model)
    return np.concatenate([run(feed)["scores"] for feed in IMAGES])


def test_accuracy() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 24)
    labels[:12] = outputs(RIGHT).argmax(1)[:12]
    metric, scorer = make_scorer(None, graph(RIGHT), images(), labels, ort_runner)
    assert metric == "accuracy" and scorer.right_or_wrong
    np.testing.assert_array_equal(scorer.float_scores, outputs(RIGHT).argmax(1) == labels)
    scores = scorer.scores(graph(WRONG), "")
    np.testing.assert_array_equal(scores, outputs(WRONG).argmax(1) == labels)
    assert scores.mean() < scorer.float_scores.mean() > 0.5


def test_agreement_is_the_default_of_a_classifier() -> None:
    metric, scorer = make_scorer(None, graph(RIGHT), images(), None, ort_runner)
    assert metric == "agreement" and scorer.right_or_wrong and scorer.float_scores.all()
    expected = outputs(WRONG).argmax(1) == outputs(RIGHT).argmax(1)
    np.testing.assert_array_equal(scorer.scores(graph(WRONG), ""), expected)
    assert 0 < expected.mean() < 1
    assert scorer.scores(graph(RIGHT), "").all()


def test_cosine() -> None:
    metric, scorer = make_scorer("cosine", graph(RIGHT), images(), None, ort_runner)
    assert metric == "cosine" and not scorer.right_or_wrong
    a, b = outputs(RIGHT).astype(np.float64), outputs(WRONG).astype(np.float64)
    expected = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(scorer.scores(graph(WRONG), ""), expected, rtol=1e-6)
    np.testing.assert_allclose(scorer.scores(graph(RIGHT), ""), 1, rtol=1e-12)


def test_a_model_of_a_fixed_batch() -> None:
    labels = outputs(RIGHT).argmax(1)
    labels[5] = (labels[5] + 1) % 5
    singles = [feed["x"][0] for feed in IMAGES]
    _, scorer = make_scorer("accuracy", graph(classifier(0, batch=4)), images(4, singles), labels, ort_runner)
    assert scorer.float_scores.tolist() == [number != 5 for number in range(24)]


Fake = Callable[[onnx.ModelProto], Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]]


def shaped(*shape: int, dtype: int = TensorProto.FLOAT, also: tuple[str, ...] = ()) -> ir.Model:
    """A model of input x and output y of this shape; it is never run. also: further outputs."""
    nodes = [helper.make_node("Identity", ["x"], [name], name) for name in ("y", *also)]
    infos = [helper.make_tensor_value_info(name, dtype, shape) for name in ("x", "y", *also)]
    made = helper.make_graph(nodes, "g", infos[:1], infos[1:])
    return graph(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def gives(**arrays: np.ndarray) -> Fake:
    return lambda model: lambda inputs: {output.name: arrays[output.name].copy() for output in model.graph.output}


@pytest.mark.parametrize(
    ("shape", "also", "metric"),
    [
        ((1, 10), (), "agreement"),
        ((1, 10, 1, 1), (), "agreement"),
        ((1, 1), (), "cosine"),
        ((10,), (), "cosine"),
        ((1, 3, 8, 8), (), "cosine"),
        ((1, 10), ("z",), "cosine"),
    ],
)
def test_the_metric_follows_the_outputs(shape: tuple[int, ...], also: tuple[str, ...], metric: str) -> None:
    zeros = np.zeros(shape, np.float32)
    some = open_calibration([{"x": zeros}], [ModelInput("x", shape, "float32")])
    run = gives(y=zeros, z=zeros)
    assert make_scorer(None, shaped(*shape, also=also), some, None, run)[0] == metric


def test_zeros_have_no_angle() -> None:
    zeros, ones = np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)
    some = open_calibration([{"x": zeros}], [ModelInput("x", (1, 3), "float32")])
    for second, expected in ((zeros, 1.0), (ones, 0.0)):
        turns = iter((zeros, second))
        _, scorer = make_scorer("cosine", shaped(1, 3), some, None, lambda model: gives(y=next(turns))(model))  # noqa: B023
        assert scorer.scores(shaped(1, 3), "").tolist() == [expected]


def test_what_does_not_fit() -> None:
    labels = np.zeros(24, np.int64)
    cases: list[tuple[type[Exception], str, str, np.ndarray | None]] = [
        (UsageError, "accuracy", "the metric accuracy needs labels", None),
        (InputError, "accuracy", r"a label is beyond the classes \(expected 0 to 4, got 5\)", labels + 5),
        (InputError, "accuracy", r"not one label for each result \(expected 24, got 23\)", labels[:23]),
    ]
    for kind, metric, text, given in cases:
        with pytest.raises(kind, match=text):
            make_scorer(metric, graph(RIGHT), images(), given, ort_runner)
    picture = open_calibration([np.zeros((1, 3, 8, 8), np.float32)], [ModelInput("x", (1, 3, 8, 8), "float32")])
    with pytest.raises(UsageError, match="the metric agreement needs scores of classes, and output 'y' has none"):
        make_scorer("agreement", shaped(1, 3, 8, 8), picture, None, gives())


def test_outputs_of_all_samples_are_never_in_memory() -> None:
    """Fifty outputs of 4 MB each, of two models."""
    large = np.ones((1, 1 << 20), np.float32)
    some = open_calibration([np.zeros((1, 4), np.float32)] * 50, [ModelInput("x", (1, 4), "float32")])
    model = shaped(1, 4)
    _, scorer = make_scorer("cosine", model, some, None, gives(y=large))
    tracemalloc.start()
    try:
        scorer.scores(model, "")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20


def test_progress() -> None:
    seen: list[tuple[str, int, int]] = []
    _, scorer = make_scorer(None, graph(RIGHT), images(), None, ort_runner, lambda *step: seen.append(step))
    scorer.scores(graph(WRONG), "3 of 7 layers in float")
    assert seen[-1] == ("3 of 7 layers in float", 24, 24) and ("float model", 1, 24) in seen
