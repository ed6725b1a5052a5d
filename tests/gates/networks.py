"""Small residual networks whose blocks can be left out, hooks for them, and what they should give."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise

import numpy as np
import onnx

from evo_tvm import pipeline
from evo_tvm.errors import UsageError
from evo_tvm.gates.hook import Hook, Kind
from evo_tvm.passes._gates import Variables
from evo_tvm.passes._residual import residual_at
from tests.onnx_builder import Builder

CLASSES = 7


def residual_network(
    skipped: Collection[int] = (), channels: int = 20, size: int = 9, softmax: bool = False
) -> tuple[onnx.ModelProto, np.ndarray]:
    """A model of four residual blocks, those of the numbers `skipped` left out, and an input for it.

    In order: basic; depthwise with a linear end; basic that halves the image, whose shortcut is a convolution; basic.
    """
    b = Builder(3)
    x = b.node("Relu", b.conv(b.input(1, 3, size, size), 3, channels, 3, 1))
    for number, kind in enumerate(("basic", "depthwise", "projected", "basic")):
        width, shortcut, y = channels, x, x
        if kind == "projected":
            shortcut = b.conv(x, channels, channels + 12, 1, strides=[2, 2])
            channels += 12
        if kind == "depthwise":
            y = b.node("Clip", b.conv(y, width, 2 * width), b.constant(0.0), b.constant(6.0))
            filters = b.weights(2 * width, 1, 3, 3, terms=9)
            y = b.node(
                "Clip", b.node("Conv", y, filters, pads=[1] * 4, group=2 * width), b.constant(0.0), b.constant(6.0)
            )
            y = b.conv(y, 2 * width, width)
            x = shortcut if number in skipped else b.node("Add", y, shortcut)
            continue
        y = b.node("Relu", b.conv(y, width, channels, 3, 1, strides=[2, 2] if kind == "projected" else [1, 1]))
        y = b.conv(y, channels, channels, 3, 1)
        x = b.node("Relu", shortcut if number in skipped else b.node("Add", shortcut, y))
    pooled = b.node("Flatten", b.node("GlobalAveragePool", x))
    scores = b.node("Gemm", pooled, b.weights(channels, CLASSES, terms=channels), b.weights(CLASSES))
    b.outputs.append(b.node("Softmax", scores) if softmax else scores)
    (array,) = b.inputs.values()
    return b.model(), array


def sites(model: onnx.ModelProto) -> list[tuple[str, str]]:
    """(site, shortcut) of every residual block, as the compiler names them, in order."""
    variables = Variables(pipeline.clean(model).module)
    found = {}
    for name in variables.values:
        try:
            found[name] = residual_at(variables, name)
        except UsageError:
            continue
    inner = {residual.activation.args[0].name for residual in found.values() if residual.activation is not None}
    return [(name, residual.shortcut.name) for name, residual in found.items() if name not in inner]


def shapes(model: onnx.ModelProto) -> Mapping[str, tuple[int, ...]]:
    """The shape of every value, as the compiler names them."""
    variables = Variables(pipeline.clean(model).module)
    return {name: tuple(int(e) for e in var.ty.shape) for name, var in variables.vars.items()}


def hook(
    model: onnx.ModelProto, site: str, kind: Kind, feature: str, outputs: int, threshold: float = 0.0, hidden: int = 0
) -> Hook:
    """A hook with random weights."""
    rng, channels = np.random.default_rng(len(site)), shapes(model)[feature][1]
    sizes = [channels, *([hidden] if hidden else []), outputs]
    weights: list[np.ndarray] = []
    for before, behind in pairwise(sizes):
        weights += [rng.standard_normal((before, behind)), rng.standard_normal(behind)]
    return Hook(site, kind, feature, tuple(w.astype(np.float32) for w in weights), threshold)


def skip_hooks(model: onnx.ModelProto) -> list[Hook]:
    """One for each block, each reading what its block reads where that is the shortcut, else the stem."""
    of = shapes(model)
    first = sites(model)[0][1]
    hooks = []
    for number, (site, shortcut) in enumerate(sites(model)):
        feature = shortcut if of[shortcut] == of[first] else first
        hooks.append(hook(model, site, "skip", feature, 1, hidden=4 * (number % 2)))
    return hooks
