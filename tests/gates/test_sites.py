"""Which sites are found, and what is said where there are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import evo_tvm
from evo_tvm import pipeline
from evo_tvm.errors import ModelError
from evo_tvm.gates.sites import Site, find_sites, parameters_of, require_sites
from evo_tvm.target import host
from tests.gates.networks import CLASSES, residual_network, sites
from tests.onnx_builder import Builder

MODELS = Path(__file__).parents[1] / "data" / "models"


def found_in(model: onnx.ModelProto) -> tuple[Site, ...]:
    return find_sites(pipeline.clean(model).module, host())


@pytest.mark.parametrize("softmax", [False, True])
def test_identity_blocks_can_be_skipped_and_exits_sit_before_the_last_block(softmax: bool) -> None:
    model, _ = residual_network(softmax=softmax)
    blocks = sites(model)
    found = found_in(model)
    skips = [(site.site, site.feature) for site in found if site.kind == "skip"]
    assert skips == [blocks[0], blocks[1], blocks[3]]  # the third one's shortcut is a convolution
    exits = [site for site in found if site.kind == "exit"]
    assert [site.site for site in exits] == [name for name, _ in blocks[:3]]
    assert [(site.feature, site.outputs) for site in exits] == [(name, CLASSES) for name, _ in blocks[:3]]
    assert [site.channels for site in exits] == [20, 20, 32]


def test_the_reference_model_has_a_site_at_every_block() -> None:
    module = pipeline.clean(MODELS / "fashion_resnet32.onnx", {"input": (1, 1, 28, 28)}).module
    found = find_sites(module, host())
    assert sum(site.kind == "skip" for site in found) == 13
    assert sum(site.kind == "exit" for site in found) == 14
    assert 440_000 < parameters_of(module) < 480_000
    channels = [site for site in found if site.kind == "channel"]
    assert channels and {(site.outputs, site.decisions) for site in channels} == {(2, 2)}  # of 64, blocks of 32
    space = [site for site in found if site.kind == "space"]
    assert {site.cells for site in space} >= {(2, 2)} and all(site.decisions == np.prod(site.cells) for site in space)
    assert not any(site.kind == "precision" for site in found)


def plain_network() -> onnx.ModelProto:
    b = Builder(1)
    x = b.node("Relu", b.conv(b.input(1, 3, 9, 9), 3, 8, 3, 1))
    b.outputs.append(b.node("Gemm", b.node("Flatten", b.node("GlobalAveragePool", x)), b.weights(8, 5), b.weights(5)))
    return b.model()


def segmentation_network() -> onnx.ModelProto:
    b = Builder(2)
    x = b.node("Relu", b.conv(b.input(1, 3, 9, 9), 3, 8, 3, 1))
    for _ in range(2):
        x = b.node("Relu", b.node("Add", x, b.conv(x, 8, 8, 3, 1)))
    b.outputs.append(b.conv(x, 8, 4))
    return b.model()


def test_a_model_without_a_site_is_told_so() -> None:
    module = pipeline.clean(plain_network()).module
    with pytest.raises(ModelError, match=r"has no site for a gate of the kind skip or exit (.|\n)*got nothing like it"):
        require_sites(module, ("skip", "exit"), host())
    module = pipeline.clean(segmentation_network()).module
    assert {site.kind for site in require_sites(module, ("skip",), host())} == {"skip"}
    with pytest.raises(ModelError, match=r"kind exit (.|\n)*got sites for skip alone\)\nAsk for --kinds skip"):
        require_sites(module, ("exit",), host())


def test_blocks_that_round_have_a_choice_of_precision(tmp_path: Path) -> None:
    calib = np.load(MODELS.parent / "fashion_calib.npz")["images"][:32, None].astype(np.float32) / 255
    quantized = evo_tvm.quantize(MODELS / "fashion_small.onnx", list(calib))
    found = find_sites(pipeline.clean(quantized, {"input": (1, 1, 28, 28)}).module, host())
    floats = find_sites(pipeline.clean(MODELS / "fashion_small.onnx", {"input": (1, 1, 28, 28)}).module, host())
    assert sum(site.kind == "precision" for site in found) == sum(site.kind == "skip" for site in floats) > 0
