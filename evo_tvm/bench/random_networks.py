"""Networks drawn at random: workloads that no family of networks has, for latency predictors to learn from."""

from __future__ import annotations

import random
from collections.abc import Callable

import onnx

from evo_tvm.bench.families import CLASSES, Zeros, channels, convolution, layers, shortcut
from evo_tvm.bench.graph import Graph, Value
from evo_tvm.bench.zoo import build_graph

#: The name that stands for them among the names of families.
RANDOM = "random"
#: Rows and columns of inputs; among them some that are no multiple of 32.
SIZES = (96, 104, 112, 128, 136, 152, 160, 176, 192, 200, 208, 224, 240, 256)
_ACTIVATIONS = (Graph.relu, Graph.relu, Graph.relu6, Graph.silu)
#: Each stage has about twice the channels of the one before it; the first one these.
_FIRST = (8, 8, 16, 16, 24, 32, 48, 64)
_MOST_CHANNELS = 768
_STAGES, _BLOCKS = 5, 2

_Activation = Callable[[Graph, Value], Value]


def random_network(width: float, depth: float, size: int) -> onnx.ModelProto:
    """A network of random blocks: the same for the same arguments always. Input [1,3,size,size], giving `logits`
    [1,1000]; weights are zero.

    width, depth: multiply its channels and the blocks of its stages.
    """
    name = f"{RANDOM}_w{width:g}_d{depth:g}_{size}"
    rng = random.Random(name)
    return build_graph(name, lambda g, x: _network(g, x, width, depth, rng), (1, 3, size, size), Zeros())


def _network(g: Graph, x: Value, width: float, depth: float, rng: random.Random) -> Value:
    activation, count = rng.choice(_ACTIVATIONS), channels(rng.choice(_FIRST), width)
    x = convolution(g, x, "stem", count, rng.choice((3, 3, 3, 5, 7)), rng.choice((1, 2, 2)), 1, activation)
    for stage in range(_STAGES):
        if stage:
            count = min(_MOST_CHANNELS, channels(count, rng.uniform(1.2, 2.6)))
        for index in range(layers(rng.randint(1, _BLOCKS), depth)):
            stride = 2 if stage and not index else 1
            block = rng.choice((_plain, _plain, _residual, _bottleneck, _inverted, _inverted, _separable, _branches))
            x = block(g, x, f"stage{stage}.{index}", count, stride, activation, rng)
    return g.classifier(x, "classifier", CLASSES)


def _plain(g: Graph, x: Value, name: str, count: int, stride: int, act: _Activation, rng: random.Random) -> Value:
    """A convolution, and before or behind it a pool where the stage begins."""
    if stride == 1:
        return convolution(g, x, name, count, rng.choice((1, 3, 3, 5)), 1, 1, act)
    if rng.random() < 0.4:
        return convolution(g, x, name, count, rng.choice((1, 3, 3, 5)), 2, 1, act)
    kernel = rng.choice((2, 3))
    if rng.random() < 0.7:
        x = g.max_pool(x, kernel, 2, pad=kernel // 2 if kernel == 3 else 0)
    else:
        x = g.average_pool(x, 2, 2)
    return convolution(g, x, name, count, 3, 1, 1, act)


def _residual(g: Graph, x: Value, name: str, count: int, stride: int, act: _Activation, rng: random.Random) -> Value:
    y = convolution(
        g, x, f"{name}.0", rng.choice((count, count // 2 // 8 * 8 or 8)), rng.choice((1, 3)), stride, 1, act
    )
    y = convolution(g, y, f"{name}.1", count, 3, 1, 1, None)
    return _added(g, x, y, name, stride, act)


def _bottleneck(g: Graph, x: Value, name: str, count: int, stride: int, act: _Activation, rng: random.Random) -> Value:
    """Of 1x1, 3x3 in groups or not, and 1x1 convolutions."""
    groups = rng.choice((1, 1, 2, 4, 8, 16, 32))
    narrow = -(-max(16, count // rng.choice((1, 2, 4))) // (8 * groups)) * 8 * groups
    y = convolution(g, x, f"{name}.0", narrow, 1, 1, 1, act)
    y = convolution(g, y, f"{name}.1", narrow, 3, stride, groups, act)
    y = convolution(g, y, f"{name}.2", count, 1, 1, 1, None)
    return _added(g, x, y, name, stride, act)


def _inverted(g: Graph, x: Value, name: str, count: int, stride: int, act: _Activation, rng: random.Random) -> Value:
    """Of a 1x1 convolution to more channels, a depthwise one, and a 1x1 one to few."""
    y = convolution(g, x, f"{name}.0", min(_MOST_CHANNELS, x.channels * rng.choice((2, 3, 4, 6))), 1, 1, 1, act)
    y = convolution(g, y, f"{name}.1", y.channels, rng.choice((3, 3, 5, 7)), stride, y.channels, act)
    y = convolution(g, y, f"{name}.2", count, 1, 1, 1, None)
    return g.add(y, x) if stride == 1 and x.channels == count else y


def _separable(g: Graph, x: Value, name: str, count: int, stride: int, act: _Activation, rng: random.Random) -> Value:
    """A depthwise convolution and a 1x1 one."""
    y = convolution(g, x, f"{name}.0", x.channels, rng.choice((3, 3, 5)), stride, x.channels, act)
    return convolution(g, y, f"{name}.1", count, 1, 1, 1, act)


def _branches(g: Graph, x: Value, name: str, count: int, stride: int, act: _Activation, rng: random.Random) -> Value:
    """Convolutions side by side, behind a narrow one or not."""
    if stride == 2:
        x = g.max_pool(x, 3, 2, pad=1)
    narrow = convolution(g, x, f"{name}.0", max(8, count // rng.choice((2, 4, 8)) // 8 * 8), 1, 1, 1, act)
    share = max(8, count // 2 // 8 * 8)
    parts = [
        convolution(g, narrow, f"{name}.{k}", share, k, 1, 1, act) for k in rng.choice(((1, 3), (3, 5), (1, 3, 5)))
    ]
    return g.concat([x, *parts] if rng.random() < 0.3 else parts)


def _added(g: Graph, x: Value, y: Value, name: str, stride: int, act: _Activation) -> Value:
    return act(g, g.add(y, shortcut(g, x, name, y.channels, stride)))
