"""Thresholds, forcing and budgets, against a library of arrays; and the environment."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evo_tvm.errors import ArtifactError, UsageError
from evo_tvm.runtime.environment import Environment, read_environment
from evo_tvm.runtime.gates import CurvePoint, GateInfo, Gates
from evo_tvm.runtime.manifest import Manifest, TargetInfo

INFOS = (GateInfo("a", "skip", 0.5), GateInfo("b", "channel", 0.0, 3), GateInfo("c", "exit", 0.9))
CURVE = (
    CurvePoint((0.0, 0.0, 1.0), 1.0, 0.93),
    CurvePoint((1.0, 1.0, 0.5), 0.4, 0.80),
    CurvePoint((0.7, 0.2, 0.8), 0.7, 0.92),
    CurvePoint((0.8, 0.2, 0.8), 0.6, 0.92),
)


class Arrays:
    """Stands in for a library."""

    def __init__(self) -> None:
        self.made: dict[str, Any] = {}

    def array(self, name: str, kind: Any, count: int) -> Any:
        self.made[name] = (kind * count)()
        return self.made[name]


def gates(curve: tuple[CurvePoint, ...] = CURVE) -> Gates:
    return Gates(Arrays(), INFOS, curve)  # type: ignore[arg-type]


def spread(thresholds: tuple[float, ...]) -> list[float]:
    """As the library has them: one for each decision."""
    return [value for gate, value in zip(INFOS, thresholds, strict=True) for _ in range(gate.decisions)]


def test_thresholds_by_name_and_in_order() -> None:
    g = gates()
    assert g.thresholds() == pytest.approx({"a": 0.5, "b": 0.0, "c": 0.9})
    g.set_thresholds({"c": 0.25})
    assert g.thresholds() == pytest.approx({"a": 0.5, "b": 0.0, "c": 0.25})
    g.set_thresholds([1, 2, 3])
    assert g.thresholds() == {"a": 1.0, "b": 2.0, "c": 3.0}


def test_each_decision_of_a_gate_can_be_forced() -> None:
    g = gates()
    g.force({"b": np.array([True, False, True])})
    g.prepare(None)
    assert list(g._thresholds) == pytest.approx([0.5, -math.inf, math.inf, -math.inf, 0.9])
    g.force({"b": None})
    g.prepare(None)
    assert list(g._thresholds) == pytest.approx(spread((0.5, 0.0, 0.9)))


def test_forced_gates_have_infinite_thresholds_until_they_are_free() -> None:
    g = gates()
    g.force("full")
    assert g.thresholds() == {"a": -math.inf, "b": -math.inf, "c": math.inf}
    g.force({"a": False, "c": None})
    assert g.thresholds() == pytest.approx({"a": math.inf, "b": -math.inf, "c": 0.9})
    g.set_thresholds({"a": 0.75})
    assert g.thresholds()["a"] == math.inf
    g.force(None)
    assert g.thresholds() == pytest.approx({"a": 0.75, "b": 0.0, "c": 0.9})


@pytest.mark.parametrize(("budget", "point"), [(1.0, 0), (2.5, 0), (0.75, 3), (0.65, 3), (0.5, 1), (0.1, 1)])
def test_a_budget_takes_the_most_accurate_point_that_it_pays(budget: float, point: int) -> None:
    g = gates()
    g.prepare(budget)
    assert list(g._thresholds) == pytest.approx(spread(CURVE[point].thresholds))
    g.prepare(None)
    assert list(g._thresholds) == pytest.approx(spread((0.5, 0.0, 0.9)))


def test_a_budget_that_is_set_holds_and_forced_gates_stay_forced() -> None:
    g = gates()
    g.set_budget(lambda environment: 0.4 if isinstance(environment, Environment) else 1.0)
    g.force({"c": True})
    assert g.thresholds() == {"a": 1.0, "b": 1.0, "c": -math.inf}
    g.set_budget(None)
    assert g.thresholds() == pytest.approx({"a": 0.5, "b": 0.0, "c": -math.inf})


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda g: g.set_thresholds({"x": 1}), r"no gate 'x' \(expected a, b, c"),
        (lambda g: g.force({"b": np.array([True])}), r"b: wrong number of decisions \(expected 3, got \(1,\)\)"),
        (lambda g: g.set_thresholds([1.0]), r"wrong number of thresholds \(expected 3, got 1\)"),
        (lambda g: g.set_thresholds({"a": math.nan}), "a threshold must be a number"),
        (lambda g: g.force({"x": True}), "no gate 'x'"),
        (lambda g: g.force("none"), r"expected full, got none"),
        (lambda g: g.prepare(0.0), r"expected above 0, got 0.0"),
        (lambda g: g.prepare(True), "a budget is a share"),
        (lambda g: g.set_budget(lambda environment: "much"), "a budget is a share"),
    ],
)
def test_wrong_use_says_what_is_wrong(call: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        call(gates())


def test_without_a_curve_there_is_no_budget() -> None:
    with pytest.raises(UsageError, match="no accuracy-latency curve to move along"):
        gates(()).prepare(0.5)


def test_rates_and_counts() -> None:
    g = gates()
    g._counts[:] = [10, 4, 30, 0, 0, 0]
    assert [(r.name, r.asked, r.rate) for r in g.rates()] == [("a", 10, 0.4), ("b", 30, 0.0), ("c", 0, None)]
    before = g.counts()
    g._counts[0], g._counts[1] = 12, 6
    assert (g.rates(since=before)[0].asked, g.rates(since=before)[0].rate) == (2, 1.0)
    g.rates(reset=True)
    assert g.counts() == [0] * 6


def test_the_log_has_each_sample_of_a_batch() -> None:
    g = Gates(Arrays(), INFOS, (), samples=2)  # type: ignore[arg-type]
    assert isinstance(g._scores, ctypes.Array)
    g._scores[:] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    g._decisions[:] = [1, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    a, b, c = g.log()
    assert a.scores.tolist() == [[0], [5]] and b.scores.tolist() == [[1, 2, 3], [6, 7, 8]]
    assert b.on.tolist() == [[False, True, False], [False] * 3] and c.on.tolist() == [[False], [True]]


def manifest() -> Manifest:
    target = TargetInfo("t", "x86_64-linux-gnu", "c", ())
    gates = (*INFOS, GateInfo("d", "skip", -math.inf))
    return Manifest("0", "0", target, 1, (), (), 64, (), gates=gates, curve=CURVE, batch=4)


def test_gates_and_curve_go_through_the_manifest() -> None:
    read = Manifest.from_json(manifest().to_json())
    assert (read.gates, read.curve, read.batch) == (manifest().gates, CURVE, 4)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"threshold": 0.5', '"threshold": "high"', r"gates\[0\]\.threshold is wrong .expected a number"),
        ('"threshold": 0.5', '"threshold": NaN', r"gates\[0\]\.threshold is wrong .expected a number"),
        ('"decisions": 3', '"decisions": 0', r"gates\[1\]\.decisions is wrong"),
        ('"batch": 4', '"batch": 0', "batch is wrong"),
        ('"accuracy": 0.93', '"accuracy": null', r"curve\[0\]\.accuracy is wrong"),
    ],
)
def test_a_damaged_manifest_is_refused(old: str, new: str, says: str) -> None:
    text = manifest().to_json()
    assert old in text
    with pytest.raises(ArtifactError, match=says):
        Manifest.from_json(text.replace(old, new, 1))


def test_the_environment_is_read_from_the_system(tmp_path: Path) -> None:
    assert read_environment(tmp_path) == Environment(None, None, None)
    files = {
        "proc/loadavg": "3.0 2.0 1.0 1/100 4242\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1200000\n",
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "2400000\n",
        "sys/class/power_supply/AC/online": "0\n",
        "sys/class/power_supply/BAT0/capacity": "37\n",
        "sys/class/power_supply/BAT0/status": "Discharging\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = read_environment(tmp_path)
    assert found.clock == 0.5 and found.battery == 0.37 and found.load is not None and found.load > 0
    (tmp_path / "sys/class/power_supply/BAT0/status").write_text("Charging\n")
    assert read_environment(tmp_path).battery is None
