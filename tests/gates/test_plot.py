"""The picture of the accuracy-latency curve."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from evo_tvm.gates.plot import svg
from evo_tvm.gates.report import GateReport
from evo_tvm.gates.thresholds import Choice


def report() -> GateReport:
    curve = tuple(Choice((), (t,), t, a, (1 - t,), ()) for t, a in ((0.9, 0.95), (0.6, 0.94), (0.3, 0.8)))
    return GateReport("accuracy", 0.01, 100, 500, 0.95, (0.94, 0.6), (0.93, 0.62), 0.004, 1.2, (), (), curve)


def test_the_picture_is_whole_says_what_it_shows_and_is_the_same_again() -> None:
    text = svg(report())
    assert ElementTree.fromstring(text).tag.endswith("svg")
    for words in ("average latency, % of the model without gates", "accuracy, %", "chosen, measured", "without gates"):
        assert words in text
    assert svg(report()) == text


def test_json_has_figures_by_name() -> None:
    found = report().as_json()
    assert found["predicted"] == {"accuracy": 0.94, "latency": 0.6}
    assert found["measured"] == {"accuracy": 0.93, "latency": 0.62}
    assert found["curve"][1] == {"latency": 0.6, "accuracy": 0.94}
