from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

import evo_tvm
from evo_tvm.bench import zoo
from evo_tvm.decide import Knowledge
from evo_tvm.errors import UsageError
from evo_tvm.frontend import Imported
from evo_tvm.pipeline import Assembled, assemble, clean, plan
from evo_tvm.plan.link_layers import Link
from evo_tvm.plan.lower_integer import integer_layers
from evo_tvm.plan.read_relax import read_relax
from evo_tvm.plan.unify_bytes import unify_bytes
from evo_tvm.precision.choose import choose_form, choose_precision, compiled_in_integers, planned_in_integers
from evo_tvm.precision.judge import Predictions, by_layer, runs_here
from evo_tvm.precision.report import PrecisionReport
from evo_tvm.quantize.options import QuantizeOptions
from evo_tvm.target import resolve
from tests.onnx_runtime import exact_session
from tests.quantized_models import QuantizedBuilder

LAYERS = ("a", "b", "c")
LINKS = (Link("a", "b", 10), Link("b", "c", 10))
ALL = frozenset(LAYERS)


def form(float_layers: Set[str] | None) -> Assembled:
    """As if compiled with these layers in float."""
    floats = float_layers or frozenset()
    kernels = [SimpleNamespace(layers=(n,), dtype="float32" if n in floats else "int8") for n in LAYERS]
    artifact = SimpleNamespace(manifest=SimpleNamespace(kernels=kernels), floats=float_layers)
    return SimpleNamespace(artifact=artifact, explained=())  # type: ignore[return-value]


@dataclass
class FakeJudge:
    """Layers take what is written here, whole forms the sum of them and `more_ms`."""

    float_ms: Mapping[str, float]
    int_ms: Mapping[str, float]
    more_ms: Mapping[str, float]
    db: Mapping[str, float]
    source: str = "measured"

    def layers_ms(self, forms: Mapping[str, Assembled], layers: Sequence[str]) -> dict[str, dict[str, float]]:
        return {name: {n: ms for n, ms in self._layers(f).items() if n in layers} for name, f in forms.items()}

    def wholes_ms(self, forms: Mapping[str, Assembled]) -> dict[str, tuple[float, ...]]:
        found = {}
        for name, f in forms.items():
            whole = sum(self._layers(f).values()) + self.more_ms.get(name, 0.0)
            found[name] = (whole, whole + 0.01, whole + 0.02)
        return found

    def element_ms(self) -> float:
        return 0.001

    def outputs_db(self, forms: Mapping[str, Assembled], reference: str) -> dict[str, float]:
        return {name: self.db.get(name, 30.0) for name in forms}

    def _layers(self, f: Any) -> dict[str, float]:
        floats = f.artifact.floats or frozenset()
        return {n: self.float_ms[n] if n in floats else self.int_ms[n] for n in LAYERS}


def chosen(
    float_ms: Sequence[float],
    int_ms: Sequence[float],
    more_ms: Mapping[str, float] | None = None,
    db: Mapping[str, float] | None = None,
) -> tuple[Any, PrecisionReport]:
    times = (dict(zip(LAYERS, some, strict=True)) for some in (float_ms, int_ms))
    pure = {"fp32": form(ALL), "int8": form(None)}
    return choose_form(
        pure, form(ALL), form, LAYERS, LINKS, FakeJudge(*times, more_ms or {}, db or {}), compiled_in_integers
    )


def test_layers_whose_integers_take_longer_are_float() -> None:
    found, report = chosen([1, 1, 1], [0.5, 3, 0.5])
    assert found.artifact.floats == {"b"}
    assert report.chosen == "mixed 1"
    assert [layer.precision for layer in report.layers] == ["int8", "fp32", "int8"]
    assert [f.name for f in report.forms] == ["fp32", "int8", "fused", "mixed 1"]
    assert [f.float_layers for f in report.forms] == [3, 0, 0, 1]


@pytest.mark.parametrize(("float_ms", "int_ms", "best"), [([1, 1, 1], [2, 2, 2], "fp32"), ([2] * 3, [1] * 3, "int8")])
def test_a_pure_form_where_nothing_else_is_faster(float_ms: list[float], int_ms: list[float], best: str) -> None:
    _, report = chosen(float_ms, int_ms, {"fused": 0.1})
    assert report.chosen == best
    assert {layer.precision for layer in report.layers} == {best}


def test_a_mixed_form_that_is_slower_as_a_whole_is_not_taken() -> None:
    found, report = chosen([1, 1, 1], [0.5, 3, 0.5], {"mixed 1": 5.0, "fused": 1.0})
    assert report.chosen == "fp32"
    assert found.artifact.floats == ALL


def test_a_form_that_only_once_is_faster_is_not_taken() -> None:
    turns = {"fp32": (2.0, 2.0, 2.0), "int8": (1.0, 1.0, 1.0), "fused": (0.9, 1.1, 1.1), "mixed 1": (0.95, 0.98, 1.1)}

    class Lucky(FakeJudge):
        def wholes_ms(self, forms: Mapping[str, Assembled]) -> dict[str, tuple[float, ...]]:
            return {name: turns[name] for name in forms}

    pure = {"fp32": form(ALL), "int8": form(None)}
    times = (dict(zip(LAYERS, some, strict=True)) for some in ([1, 1, 1], [0.5, 3, 0.5]))
    _, report = choose_form(pure, form(ALL), form, LAYERS, LINKS, Lucky(*times, {}, {}), compiled_in_integers)
    assert (report.chosen, report.reason) == ("mixed 1", "faster than int8 in 2 of 3 turns")


def test_a_form_with_a_larger_error_is_refused() -> None:
    found, report = chosen([1, 1, 1], [0.5, 3, 0.5], db={"mixed 1": 20.0, "fused": 20.0})
    assert report.chosen == "fp32"
    assert [f.name for f in report.forms if "worse" in f.refused] == ["fused", "mixed 1"]
    assert found.artifact.floats == ALL


def test_what_is_slower_among_its_neighbours_goes_back() -> None:
    class Surprising(FakeJudge):
        """b in float takes longer where its neighbours are in integers."""

        def _layers(self, f: Any) -> dict[str, float]:
            found = super()._layers(f)
            return found | ({"b": 5.0} if f.artifact.floats == {"b"} else {})

    times = (dict(zip(LAYERS, some, strict=True)) for some in ([1, 1, 1], [0.5, 3, 0.5]))
    pure = {"fp32": form(ALL), "int8": form(None)}
    _, report = choose_form(pure, form(ALL), form, LAYERS, LINKS, Surprising(*times, {}, {}), compiled_in_integers)
    assert report.chosen == "fp32"
    assert len(report.forms) == 4, "the next choice is all integers, which is there already"


def test_the_report_as_json() -> None:
    _, report = chosen([1, 1, 1], [0.5, 3, 0.5], db={"fp32": float("inf")})
    found = json.loads(json.dumps(report.as_json()))
    assert found["chosen"] == "mixed 1" and found["source"] == "measured"
    assert found["forms"][0]["outputs_db"] is None and found["forms"][3]["latency_ms"] == pytest.approx(2.0)
    assert found["layers"][1] == {"layer": "b", "precision": "fp32", "float_ms": 1, "int8_ms": 3}


# ---- Real models ----


def images(count: int, size: int) -> list[npt.NDArray[np.float32]]:
    return [np.random.default_rng(seed).random((1, 3, size, size), dtype=np.float32) for seed in range(count)]


def sqnr_db(exact: npt.NDArray[Any], got: npt.NDArray[Any]) -> float:
    return float(10 * np.log10(np.square(exact).sum() / np.square(exact - got).sum()))


def tiny() -> QuantizedBuilder:
    """Two layers in integers."""
    b = QuantizedBuilder()
    b.outputs = [b.layer(b.layer(b.image(1, 16, 8, 8), 16, 32, 3, relu=True), 32, 16)]
    return b


def test_two_layers() -> None:
    b = tiny()
    artifact, report = choose_precision(b.model(), None, resolve("host"))
    assert len(report.layers) == 2 and report.source == "measured"
    latencies = {f.name: f.latency_ms for f in report.forms}
    assert latencies[report.chosen] <= min(latencies["fp32"], latencies["int8"])
    x = next(iter(b.inputs.values()))
    exact = evo_tvm.compile(b.model()).module()(x)
    assert sqnr_db(exact, artifact.module()(x)) > 25


def test_a_float_layer_among_integers_computes_the_same() -> None:
    b = tiny()
    imported = clean(b.model())
    x = next(iter(b.inputs.values()))
    forms = [assemble(imported, resolve("host"), 1, float_layers=floats) for floats in all_choices(imported)]
    exact, *others = (f.artifact.module()(x) for f in forms)
    assert len(others) == 4
    dtypes = [tuple(k.dtype for k in f.artifact.manifest.kernels if "conv2d" in k.operator) for f in forms[1:]]
    assert set(dtypes) == set(itertools.product(("float32", "int8"), repeat=2))
    for other in others:
        assert sqnr_db(exact, other) > 30


def all_choices(imported: Imported) -> list[frozenset[str] | None]:
    layers = integer_layers(unify_bytes(read_relax(imported.module)))
    return [None, *(frozenset(c) for size in range(3) for c in itertools.combinations(layers, size))]


def test_forms_are_predicted_before_they_are_compiled() -> None:
    imported, target = clean(tiny().model()), resolve("host")
    layers = integer_layers(unify_bytes(read_relax(imported.module)))
    everywhere, integers = (
        plan(imported, target, 1, float_layers=f, known=Knowledge()) for f in (frozenset(layers), frozenset())
    )
    assert planned_in_integers(everywhere) == set()
    assert planned_in_integers(integers) == compiled_in_integers(
        assemble(imported, target, 1, float_layers=frozenset())
    )
    judge = Predictions(target, [everywhere, integers])
    assert judge.source == "estimated"
    found = judge.layers_ms({"fp32": everywhere, "int8": integers}, layers)
    assert all(0 < found[form][layer] < 1 for form in found for layer in layers)
    assert judge.wholes_ms({"int8": integers})["int8"] == (sum(p.value for p in integers.predictions),)
    assert 0 < judge.element_ms() < 1e-4
    assert judge.outputs_db({"int8": integers}, "int8") == {}
    learnt = replace(everywhere, predictions=tuple(replace(p, source="predictor") for p in everywhere.predictions))
    assert Predictions(target, [learnt, integers]).source == "predicted"


def test_only_what_predictions_choose_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []

    def counted(*arguments: Any, **options: Any) -> Assembled:
        compiled.append(options.get("float_layers"))
        return assemble(*arguments, **options)

    monkeypatch.setattr("evo_tvm.precision.choose.assemble", counted)
    artifact, report = choose_precision(tiny().model(), None, resolve("host"), predict=True)
    assert len(compiled) == 1 and report.source in ("predicted", "estimated")
    assert report.chosen in {form.name for form in report.forms} and artifact.manifest.kernels
    assert {form.outputs_db for form in report.forms} == {None}


def test_predict_is_for_auto() -> None:
    with pytest.raises(UsageError, match="is for precision auto"):
        evo_tvm.compile(zoo.build("mobilenetv2", size=32), predict=True)


def test_what_cannot_run_here_is_predicted() -> None:
    assert runs_here(resolve("host"))
    assert not runs_here(resolve("rv64gcv" if resolve("host").arch != "riscv64" else "haswell"))


def test_kernels_of_no_layer_count_for_the_next_one() -> None:
    times = [("pad", 1.0), ("a", 2.0), ("a", 3.0), ("pool", 4.0), ("b", 5.0), ("end", 6.0)]
    assert by_layer(times, ["a", "b"]) == {"a": 6.0, "b": 9.0}


def test_a_model_without_integers() -> None:
    with pytest.raises(UsageError, match="no layer of the model is in integers"):
        choose_precision(zoo.build("mobilenetv2", size=32), None, resolve("host"))


def test_of_a_float_model_with_calibration_data() -> None:
    path = "tests/data/models/fashion_small.onnx"
    calib = list(np.random.default_rng(0).random((4, 1, 1, 28, 28), dtype=np.float32))
    artifact = evo_tvm.compile(path, precision="auto", calib=calib)
    found = artifact.manifest.quantization["precision"]
    assert found["chosen"] in [form["name"] for form in found["forms"]]
    exact = evo_tvm.compile(path, input_shapes={"input": (1, 1, 28, 28)}).module()(calib[0])
    assert sqnr_db(exact, artifact.module()(calib[0])) > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "there are no calibration data"),
        ({"calib": "data.npz", "dump": "folder"}, "dump: is for one form of the model"),
    ],
)
def test_what_auto_cannot_do(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evo_tvm.compile("tests/data/models/fashion_small.onnx", precision="auto", **arguments)


@pytest.fixture(scope="module")
def gated() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A network with hard-swish and gates, and its quantized form."""
    model = zoo.build("mobilenetv3", size=64)
    return model, evo_tvm.quantize(model, images(4, 64), QuantizeOptions(observer="minmax"))


def test_a_network_with_gates_in_all_precisions(gated: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    model, quantized = gated
    some = images(20, 64)[4:]
    theirs = {}
    for name, each in (("fp32", model), ("int8", quantized)):
        session = exact_session(each)
        theirs[name] = np.concatenate([session.run(None, {"input": x})[0] for x in some])
    artifact, report = choose_precision(quantized, model, resolve("host"))
    modules = {
        "fp32": evo_tvm.compile(model).module(),
        "int8": evo_tvm.compile(quantized).module(),
        "auto": artifact.module(),
    }
    ours = {name: np.concatenate([module(x) for x in some]) for name, module in modules.items()}
    np.testing.assert_allclose(ours["fp32"], theirs["fp32"], rtol=1e-3, atol=1e-4)
    floor = sqnr_db(theirs["fp32"], theirs["int8"])
    assert floor > 5
    assert sqnr_db(theirs["fp32"], ours["int8"]) > floor - 1
    assert sqnr_db(theirs["fp32"], ours["auto"]) > floor - 1
    latencies = {f.name: f.latency_ms for f in report.forms if not f.refused}
    assert latencies[report.chosen] <= min(latencies["fp32"], latencies["int8"])
    assert len(report.layers) > 60
