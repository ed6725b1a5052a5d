from __future__ import annotations

from typing import Any

import pytest

from evo_tvm.errors import UsageError
from evo_tvm.plan.choose_algorithms import choose_algorithms
from evo_tvm.target import resolve
from evo_tvm.tune.log import Log, Record
from evo_tvm.workload import workload_of
from tests.plan.graphs import Draft


def one_convolution(channels: int, size: int, kernel: int = 3, **attrs: Any) -> Any:
    d = Draft()
    d.conv("y", d.input("x", 1, channels, size, size), channels, kernel, **attrs)
    return d.graph("y")


def chosen(channels: int, size: int, kernel: int = 3, **attrs: Any) -> Any:
    graph, _ = choose_algorithms(one_convolution(channels, size, kernel, **attrs), resolve("x86-64-v3"), 1, Log(), {})
    return graph.groups[0].anchor.attrs


def test_winograd_where_it_pays() -> None:
    attrs = chosen(64, 56)
    assert attrs["algorithm"] == "winograd4" and attrs["border"] == (1, 1, 1, 1)


def test_whole_tiles_reach_beyond_the_padding() -> None:
    attrs = chosen(64, 30)  # eight tiles of four rows: 34 rows are read
    assert attrs["algorithm"] == "winograd4" and attrs["border"] == (1, 1, 3, 3)
    assert attrs["padding"] == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("channels", "size", "kernel", "attrs"),
    [
        (60, 56, 3, {}),
        (64, 56, 5, {}),
        (64, 56, 3, {"stride": (2, 2)}),
        (64, 56, 3, {"dilation": (2, 2)}),
        (64, 56, 3, {"groups": 2}),
    ],
)
def test_direct_elsewhere(channels: int, size: int, kernel: int, attrs: dict[str, Any]) -> None:
    got = chosen(channels, size, kernel, **attrs)
    assert got["algorithm"] == "spatial_pack" and got["border"] == got["padding"]


def test_other_kernels_are_left_alone() -> None:
    d = Draft()
    d.same("relu", "y", d.input("x", 3))
    graph = d.graph("y")
    assert choose_algorithms(graph, resolve("x86-64-v3"), 1, Log(), {}) == (graph, ())


def test_measurements_decide_where_every_algorithm_has_one() -> None:
    graph, target = one_convolution(64, 56), resolve("x86-64-v3")
    workload = workload_of(graph, graph.groups[0])
    configs = {
        "spatial_pack": {"oc_tile": 1, "oh_tile": 1, "ow_tile": 4},
        "winograd2": {"group_rows": 1},
        "winograd4": {"group_rows": 1},
    }
    times = {"spatial_pack": 1.0, "winograd2": 2.0, "winograd4": 3.0}

    def log(names: list[str]) -> Log:
        return Log(Record(workload, target.name, n, configs[n], "", samples_ms=(times[n],)) for n in names)

    _, (found,) = choose_algorithms(graph, target, 1, log(list(times)), {})
    assert (found.decision.algorithm, found.decision.reason) == ("spatial_pack", "measured")
    assert found.decision.config.ow_tile == 4
    assert {c.algorithm: c.latency_ms for c in found.decision.considered if c.source == "log"} == times
    _, (found,) = choose_algorithms(graph, target, 1, log(["spatial_pack"]), {})
    assert (found.decision.algorithm, found.decision.reason) == ("winograd4", "estimated")
    _, (found,) = choose_algorithms(graph, target, 2, log(list(times)), {})
    assert found.decision.reason == "estimated", "measured with another number of threads"


def test_an_algorithm_that_is_asked_for() -> None:
    graph, target = one_convolution(64, 56), resolve("x86-64-v3")
    _, (found,) = choose_algorithms(graph, target, 1, Log(), {"y": "winograd2"})
    assert (found.decision.algorithm, found.decision.reason) == ("winograd2", "asked for")


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"y": "fft"}, "y: unknown algorithm fft for conv2d"),
        ({"y": "winograd4"}, "y: algorithm winograd4 does not fit conv2d: its stride or dilation is not 1"),
        ({"z": "winograd4"}, "--algorithm: no layer z that has a choice of algorithms"),
    ],
)
def test_what_cannot_be_asked_for(asked: dict[str, str], text: str) -> None:
    graph = one_convolution(64, 56, stride=(2, 2))
    with pytest.raises(UsageError) as error:
        choose_algorithms(graph, resolve("x86-64-v3"), 1, Log(), asked)
    assert text in str(error.value)
    assert ("spatial_pack" if "y" in asked else "Layers: y.") in str(error.value)
