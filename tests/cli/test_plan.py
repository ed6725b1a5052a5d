"""`compile --explain`, `compile --algorithm` and `inspect --plan`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from evo_tvm.cli._plan import layouts_text, plan_summary, plan_text, workload_text
from evo_tvm.cli.compile import parse_algorithms
from evo_tvm.errors import ArtifactError, UsageError
from tests.command_line import evo

PLAN = [
    {
        "layer": name,
        "workload": "conv2d 1x32x16x16 32x32x3x3 dilation=1,1 groups=1 padding=1,1,1,1 stride=1,1 float32",
        "algorithm": "winograd2",
        "config": "group_rows=1",
        "reason": "measured",
        "considered": [
            {"algorithm": "direct", "config": "tile=4", "latency_ms": 0.5, "source": "rule"},
            {"algorithm": "winograd2", "config": "group_rows=1", "latency_ms": 0.25, "source": "log"},
            {"algorithm": "im2col", "refused": "it is grouped"},
        ],
    }
    for name in ("first", "second")
]


@pytest.fixture(scope="module")
def two_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convolutions "same" (3x3, Winograd fits) and "half" (stride 2, it does not), and a transposition."""
    rng = np.random.default_rng(0)
    weights = {"same": rng.standard_normal((16, 16, 3, 3)), "half": rng.standard_normal((16, 16, 3, 3))}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "same"], ["a"], "same", pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["a", "half"], ["c"], "half", pads=[1, 1, 1, 1], strides=[2, 2]),
            helper.make_node("Transpose", ["c"], ["b"], "turn", perm=[0, 1, 3, 2]),
        ],
        "two_layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 12, 12])],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 16, 6, 6])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    path = tmp_path_factory.mktemp("models") / "two_layers.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_layers_decided_alike_are_one_entry() -> None:
    assert plan_text(PLAN, "m.evo").splitlines() == [
        "conv2d 1x32x16x16 by 32x32x3x3, padding 1",
        "  2 layers: first, second",
        "  taken: winograd2, measured",
        "    direct        0.5000 ms  estimated  tile=4",
        "  * winograd2     0.2500 ms  measured   group_rows=1",
        "    im2col     refused: it is grouped",
    ]
    assert plan_summary(PLAN, "m.evo") == "2 winograd2; 2 measured"


def test_other_decisions_are_other_entries() -> None:
    text = plan_text([PLAN[0], PLAN[1] | {"algorithm": "direct", "reason": "asked for"}], "m.evo")
    assert text.count("conv2d") == 2 and "  taken: direct, asked for\n  * direct " in text


def test_no_plan_and_a_damaged_one() -> None:
    assert plan_text([], "m.evo") == "No layer has algorithms."
    assert plan_summary([], "m.evo") == "no layer has algorithms"
    for damaged in (["text"], [{"layer": "a"}], [PLAN[0] | {"workload": "conv2d 1xa float32"}], [[]]):
        with pytest.raises(ArtifactError, match="its plan is damaged"):
            plan_text(damaged, "m.evo")
    with pytest.raises(ArtifactError, match="its plan is damaged"):
        plan_summary([{"layer": "a"}], "m.evo")


def test_layouts_with_what_was_weighed() -> None:
    layout = {"tensors": ["a", "b"], "block": 8, "reason": "estimated", "cycles": {"16": 9000.0, "8": 4500.4}}
    assert layouts_text([{**layout, "times_ms": {"16": 0.5, "8": 0.25}}], "m.evo").splitlines() == [
        "channel blocks of a, b",
        "  taken: 8, estimated",
        "    16     0.5000 ms  known         9,000 cycles  estimated",
        "  *  8     0.2500 ms  known         4,500 cycles  estimated",
    ]
    assert layouts_text([{**layout, "times_ms": {}}], "m.evo").endswith("  *  8         4,500 cycles  estimated")
    for damaged in (["text"], [layout], [{**layout, "cycles": {"x": 1.0}, "times_ms": {}}]):
        with pytest.raises(ArtifactError, match="its layouts are damaged"):
            layouts_text(damaged, "m.evo")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (
            "conv2d 1x3x9x9 8x3x3x3 dilation=2,2 groups=1 padding=1,0,1,0 stride=2,1 float32",
            "conv2d 1x3x9x9 by 8x3x3x3, dilation 2, padding 1,0,1,0, stride 2,1",
        ),
        (
            "max_pool2d 1x8x4x4 count_include_pad=0 dilation=1,1 padding=0,0,0,0 pool_size=3,2 stride=1,1 float32",
            "max_pool2d 1x8x4x4, window 3x2",
        ),
        ("dense 1x8 8x10 float64", "dense 1x8 by 8x10, float64"),
    ],
)
def test_workloads_without_what_goes_without_saying(key: str, text: str) -> None:
    assert workload_text(key) == text


def test_explain_says_what_was_considered_and_inspect_the_same(two_layers: Path, tmp_path: Path) -> None:
    made = tmp_path / "m.evo"
    shown = evo("compile", two_layers, "-o", made, "--explain")
    assert shown.status == 0, shown.err
    assert "  1 layer: same\n" in shown.out and "  1 layer: half\n" in shown.out
    assert "refused: its stride or dilation is not 1" in shown.out
    assert "predicted" in shown.out or "estimated" in shown.out  # as there is a predictor for this machine, or none
    plan = evo("inspect", made, "--plan").out
    assert plan.strip() and shown.out.startswith(plan)
    assert "plan" in evo("inspect", made).out and "prepared" in evo("inspect", made).out
    as_json = json.loads(evo("compile", two_layers, "-o", made, "--explain", "--json").out)
    assert as_json["plan"] == json.loads(evo("inspect", made, "--plan", "--json").out)
    assert [entry["layer"] for entry in as_json["plan"]] == ["same", "half"]
    assert "plan" not in json.loads(evo("compile", two_layers, "-o", made, "--json").out)


@pytest.mark.parametrize(
    ("options", "same"),
    [(["same=winograd2"], "winograd2"), (["*=winograd2"], "winograd2"), (["*=winograd2", "same=im2col"], "im2col")],
)
def test_algorithms_that_are_asked_for(two_layers: Path, tmp_path: Path, options: list[str], same: str) -> None:
    made = tmp_path / "m.evo"
    done = evo("compile", two_layers, "-o", made, *(f"--algorithm={option}" for option in options))
    assert done.status == 0, done.err
    plan = {entry["layer"]: entry for entry in json.loads(evo("inspect", made, "--plan", "--json").out)}
    assert (plan["same"]["algorithm"], plan["same"]["reason"]) == (same, "asked for")
    assert plan["half"]["reason"] != "asked for"


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (["same"], ["--algorithm: wrong form (expected LAYER=ALGORITHM, got 'same')"]),
        (["=winograd2"], ["wrong form"]),
        (["same="], ["wrong form"]),
        (["same=winograd2", "same=winograd4"], ["--algorithm: 'same' is given twice"]),
        (["none=winograd2"], ["--algorithm: no layer none that has a choice of algorithms", "Layers: half, same."]),
        (["same=fft"], ["same: unknown algorithm fft for conv2d", "Those that fit: spatial_pack"]),
        (["half=winograd2"], ["half: algorithm winograd2 does not fit conv2d: its stride or dilation is not 1"]),
        (["*=depthwise"], ["--algorithm: algorithm depthwise fits no layer of this model", "conv2d: spatial_pack"]),
    ],
)
def test_what_cannot_be_asked_for(two_layers: Path, tmp_path: Path, options: list[str], texts: list[str]) -> None:
    done = evo("compile", two_layers, "-o", tmp_path / "m.evo", *(f"--algorithm={option}" for option in options))
    assert done.status == 2 and done.out == "" and not list(tmp_path.iterdir())
    assert all(text in done.err for text in texts), done.err


def test_names_may_have_equals_signs() -> None:
    assert parse_algorithms(["a=b/conv=winograd2"]) == {"a=b/conv": "winograd2"}
    assert parse_algorithms([]) is None
    with pytest.raises(UsageError):
        parse_algorithms(["a=b="])


def test_an_onnx_file_has_no_plan(two_layers: Path) -> None:
    done = evo("inspect", two_layers, "--plan")
    assert done.status == 2 and "an ONNX file has no plan" in done.err and "--explain" in done.err
