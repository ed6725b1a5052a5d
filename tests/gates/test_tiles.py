"""Gates of tiles: tiles that are on are what they are in the whole image, the others their shortcut, or zero."""

from __future__ import annotations

import numpy as np
import pytest

from evo_tvm.compile_gated import compile_gated
from evo_tvm.decide_tile import tile_candidates, tile_of_image
from evo_tvm.errors import UsageError
from evo_tvm.gates.hook import Hook
from evo_tvm.target import host
from tests.gates.networks import residual_network, shapes, sites

ATOL = 1e-5  # of the largest value: winograd tiles may begin elsewhere


def space_hook(site: str, feature: str, channels: int, tile: int) -> Hook:
    weights = np.random.default_rng(1).standard_normal((channels, 1)).astype(np.float32)
    return Hook(site, "space", feature, (weights, np.zeros(1, np.float32)), 0.0, tile)


@pytest.mark.parametrize("block", [0, 1, 2, 3])
@pytest.mark.parametrize("winograd", [True, False])
def test_every_number_of_tiles(block: int, winograd: bool) -> None:
    model, x = residual_network(channels=32, size=24)
    of, (site, shortcut) = shapes(model), sites(model)[block]
    stem = sites(model)[0][1]
    tile = of[site][2] // 3
    ways = {"observe": [site], "algorithms": None if winograd else {"*": "spatial_pack"}}
    if not winograd:
        ways.pop("algorithms")
    hooks = [space_hook(site, stem, 32, tile)]
    module = compile_gated(model, hooks, **ways).module()
    result, full, skipped = compile_gated(model, observe=[site, shortcut]).module()(x)
    relu = block != 1
    off = np.maximum(skipped, 0) if relu else skipped
    module.force("full")
    assert np.array_equal(module(x)[0], result) and np.array_equal(module(x)[1], full)
    scores = np.sort(module.gate_log()[0].scores)
    module.force(None)
    for on in range(len(scores)):
        module.set_thresholds({site: float(scores[len(scores) - on - 1])})
        seen = module(x)[1]
        decided = module.gate_log()[0].on.reshape(3, 3)
        assert decided.sum() == on
        wanted = np.where(np.kron(decided, np.ones((tile, tile), bool)), full, off)
        assert np.abs(seen - wanted).max() <= ATOL * np.abs(full).max()


def test_tiles_together() -> None:
    model, x = residual_network(channels=32, size=32)
    site, shortcut = sites(model)[0]
    tile = shapes(model)[site][2] // 4
    hooks = [space_hook(site, shortcut, 32, tile)]
    module = compile_gated(model, hooks, observe=[site]).module()
    _, full, skipped = compile_gated(model, observe=[site, shortcut]).module()(x)
    rows, rng = np.arange(16) // 4, np.random.default_rng(0)
    halves = [rows < 2, rows >= 2, rows % 2 == 0, np.arange(16) % 4 < 2, np.arange(16) % 4 > 1, np.arange(16) != 6]
    for on in (*halves, *(rng.random(16) < share for share in (0.2, 0.5, 0.5, 0.5, 0.8, 0.8))):
        module.force({site: on})
        seen = module(x)[1]
        wanted = np.where(np.kron(on.reshape(4, 4), np.ones((tile, tile), bool)), full, np.maximum(skipped, 0))
        assert np.abs(seen - wanted).max() <= ATOL * np.abs(full).max()


def test_without_a_shortcut_the_other_tiles_are_zero() -> None:
    model, x = residual_network(channels=32, size=24)
    of, (_, stem) = shapes(model), sites(model)[0]
    inner = next(name for name in list(of)[list(of).index(stem) + 1 :] if name in _relus(model))
    module = compile_gated(model, [space_hook(inner, stem, 32, 8)], observe=[inner]).module()
    full = compile_gated(model, observe=[inner]).module()(x)[1]
    module.force("full")
    module(x)
    module.set_thresholds({inner: float(np.median(module.gate_log()[0].scores))})
    module.force(None)
    seen = module(x)[1]
    mask = np.kron(module.gate_log()[0].on.reshape(3, 3), np.ones((8, 8), bool))
    assert 0 < mask.mean() < 1
    assert np.abs(seen - np.where(mask, full, 0)).max() <= ATOL * np.abs(full).max()
    assert not seen[..., ~mask].any()


def _relus(model) -> set[str]:  # type: ignore[no-untyped-def]
    from evo_tvm import pipeline
    from evo_tvm.passes._gates import Variables
    from evo_tvm.passes._values import operator_name

    values = Variables(pipeline.clean(model).module).values
    return {name for name, value in values.items() if operator_name(value) == "relax.nn.relu"}


def test_tiles_divide_the_image() -> None:
    assert tile_candidates(56, 56) == (4, 7, 8, 14, 28)
    assert tile_candidates(7, 7) == ()
    with pytest.raises(UsageError, match="an image of 7x7 pixels cannot be divided into square tiles"):
        tile_of_image((1, 512, 7, 7), host())
    assert tile_of_image((1, 64, 56, 56), host()) in (4, 7, 8, 14, 28)
