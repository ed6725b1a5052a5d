from __future__ import annotations

from typing import Any

import pytest

from evo_tvm.decide import Decision, decide
from evo_tvm.errors import UsageError
from evo_tvm.plan.choose_algorithms import choose_algorithms
from evo_tvm.target import resolve
from evo_tvm.tune.log import Log, Record
from evo_tvm.workload import Workload, workload_of
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


def decided(
    operator: str, oc: int, ic_group: int, image: int, kernel: int, groups: int = 1, dilation: int = 1, target: str = ""
) -> Decision:
    """What is decided for a convolution that keeps its image's size."""
    reach = dilation * (kernel - 1) // 2
    weight = (oc, ic_group, kernel, kernel) if operator == "conv2d" else (ic_group, oc, kernel, kernel)
    attrs = {"dilation": (dilation,) * 2, "groups": (groups,), "padding": (reach,) * 4, "stride": (1, 1)}
    shapes = ((1, ic_group * groups, image, image), weight)
    workload = Workload(operator, shapes, (1, oc, image, image), tuple(sorted(attrs.items())))
    return decide(workload, resolve(target or "x86-64-v3"), 1, Log())


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4", "aarch64-linux-gnu"])
@pytest.mark.parametrize(
    ("oc", "ic_group", "image", "kernel", "groups", "wanted"),
    [
        (136, 34, 28, 1, 4, "grouped_windowed"),  # ShuffleNet
        (112, 6, 28, 1, 4, "grouped_windowed"),
        (256, 1, 28, 3, 128, "grouped_lanewise"),  # two results a channel
        (64, 16, 28, 3, 32, "grouped_windowed"),  # lanes that come from eight vectors
        (128, 32, 28, 3, 4, "spatial_pack"),  # whole blocks
    ],
)
def test_groups(oc: int, ic_group: int, image: int, kernel: int, groups: int, wanted: str, target: str) -> None:
    assert decided("conv2d", oc, ic_group, image, kernel, groups, target=target).algorithm == wanted


def test_a_border_larger_than_the_image_is_avoided() -> None:
    found = {d: decided("conv2d", 64, 256, 33, 3, dilation=d, target="x86-64-v4").algorithm for d in (2, 4, 24, 36)}
    assert found == {2: "spatial_pack", 4: "spatial_pack", 24: "indirect", 36: "indirect"}


def test_columns_are_not_for_large_images() -> None:
    for kernel, channels, image in ((1, 256, 14), (3, 16, 112), (5, 60, 28)):
        assert decided("conv2d", 64, channels, image, kernel).algorithm not in ("im2col", "indirect")


def test_a_transposed_convolution_has_one_algorithm() -> None:
    found = decided("conv2d_transpose", 64, 32, 28, 3)
    assert (found.algorithm, found.reason) == ("transposed", "the only one")


def test_the_message_names_the_algorithms_that_fit() -> None:
    graph = one_convolution(60, 28, groups=10)
    with pytest.raises(UsageError, match=r"does not fit conv2d: it is grouped") as error:
        choose_algorithms(graph, resolve("x86-64-v3"), 1, Log(), {"y": "im2col"})
    assert "Those that fit: grouped_windowed, grouped_lanewise." in str(error.value)


def test_other_kernels_are_left_alone() -> None:
    d = Draft()
    d.same("relu", "y", d.input("x", 3))
    graph = d.graph("y")
    assert choose_algorithms(graph, resolve("x86-64-v3"), 1, Log(), {}) == (graph, ())


def test_measurements_decide_where_the_estimated_best_has_one() -> None:
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


def test_an_algorithm_for_all_layers_that_it_fits() -> None:
    d = Draft()
    d.conv("a", d.input("x", 1, 64, 56, 56), 64, 3)
    d.conv("b", "a", 64, 3, stride=(2, 2))
    d.conv("y", "b", 64, 3)
    graph, target = d.graph("y"), resolve("x86-64-v3")
    _, found = choose_algorithms(graph, target, 1, Log(), {"*": "winograd2", "y": "spatial_pack"})
    assert [(e.layer, e.decision.algorithm, e.decision.reason == "asked for") for e in found] == [
        ("a", "winograd2", True),
        ("b", found[1].decision.algorithm, False),
        ("y", "spatial_pack", True),
    ]
    _, (found_one,) = choose_algorithms(one_convolution(64, 56), target, 1, Log(), {"*": "winograd2", "y": "im2col"})
    assert found_one.decision.algorithm == "im2col", "it fits, though every layer is named"


@pytest.mark.parametrize("name", ["winograd4", "depthwise", "fft"])
def test_an_algorithm_that_fits_no_layer(name: str) -> None:
    with pytest.raises(UsageError) as error:
        choose_algorithms(one_convolution(64, 56, stride=(2, 2)), resolve("x86-64-v3"), 1, Log(), {"*": name})
    assert f"--algorithm: algorithm {name} fits no layer of this model\nconv2d: spatial_pack, " in str(error.value)


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
