"""Families of networks, each in any width, depth and resolution: what latency predictors are trained and tested on.

Published architectures with their numbers of channels and layers as parameters; weights are zero, since they do not
decide how long a network takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnx

from evo_tvm.bench.graph import Graph, Value
from evo_tvm.bench.zoo import build_graph
from evo_tvm.errors import UsageError

CLASSES = 1000
#: A network of a family from its input: (graph, input, width, depth), 1 being as published.
Family = Callable[[Graph, Value, float, float], Value]


class Zeros:
    """Weights that cost no time to draw; variances and biases are one, so that no addition falls away."""

    def __call__(self, name: str, shape: tuple[int, ...], gain: float = 1.0) -> npt.NDArray[np.float32]:
        return (np.ones if name.endswith(("running_var", "bias")) else np.zeros)(shape, np.float32)


def model(family: str, width: float = 1.0, depth: float = 1.0, size: int = 224, batch: int = 1) -> onnx.ModelProto:
    """The network of `FAMILIES[family]` for inputs [batch,3,size,size], giving `logits` [batch,1000].

    width, depth: multiply its channels and the layers of its stages. Raises UsageError: no such family.
    """
    if family not in FAMILIES:
        raise UsageError(f"there is no family {family!r}", hint=f"Choose one of {', '.join(FAMILIES)}.")

    def architecture(g: Graph, x: Value) -> Value:
        return FAMILIES[family](g, x, width, depth)

    return build_graph(f"{family}_w{width:g}_d{depth:g}_{size}", architecture, (batch, 3, size, size), Zeros())


def channels(count: int, width: float) -> int:
    """A multiple of eight, as Howard et al., "MobileNets" (2017), take, and at least that."""
    return max(8, int(count * width + 4) // 8 * 8)


def layers(count: int, depth: float) -> int:
    """At least one."""
    return max(1, round(count * depth))


def convolution(
    g: Graph,
    x: Value,
    name: str,
    count: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    activation: Callable[[Graph, Value], Value] | None = Graph.relu,
) -> Value:
    """With its normalization, and what follows."""
    x = g.batch_norm(g.conv(x, f"{name}.conv", count, kernel, stride=stride, groups=groups), f"{name}.bn")
    return activation(g, x) if activation is not None else x


def _vgg(g: Graph, x: Value, width: float, depth: float) -> Value:
    """Simonyan and Zisserman, "Very Deep Convolutional Networks" (ICLR 2015)."""
    for stage, (count, repeats) in enumerate(((64, 1), (128, 1), (256, 2), (512, 2), (512, 2))):
        for index in range(layers(repeats, depth)):
            x = convolution(g, x, f"stage{stage}.{index}", channels(count, width), 3)
        x = g.max_pool(x, 2, 2)
    return g.classifier(x, "classifier", CLASSES)


def _resnet(g: Graph, x: Value, width: float, depth: float) -> Value:
    """He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), blocks of two 3x3 convolutions."""
    x = g.max_pool(convolution(g, x, "stem", channels(64, width), 7, 2), 3, 2, pad=1)
    for stage, count in enumerate((64, 128, 256, 512)):
        for index in range(layers(2, depth)):
            name, stride = f"stage{stage}.{index}", 2 if stage and not index else 1
            y = convolution(g, x, f"{name}.0", channels(count, width), 3, stride)
            y = convolution(g, y, f"{name}.1", channels(count, width), 3, activation=None)
            x = g.relu(g.add(y, shortcut(g, x, name, y.channels, stride)))
    return g.classifier(x, "classifier", CLASSES)


def _bottleneck(g: Graph, x: Value, width: float, depth: float) -> Value:
    """He et al. (CVPR 2016), blocks of 1x1, 3x3 and 1x1 convolutions."""
    return _bottlenecks(g, x, width, depth, groups=1, inner=1)


def _resnext(g: Graph, x: Value, width: float, depth: float) -> Value:
    """Xie et al., "Aggregated Residual Transformations for Deep Neural Networks" (CVPR 2017): 32 groups."""
    return _bottlenecks(g, x, width, depth, groups=32, inner=2)


def _bottlenecks(g: Graph, x: Value, width: float, depth: float, groups: int, inner: int) -> Value:
    x = g.max_pool(convolution(g, x, "stem", channels(64, width), 7, 2), 3, 2, pad=1)
    for stage, (count, repeats) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        narrow = -(-channels(count * inner, width) // groups) * groups
        for index in range(layers(repeats, depth)):
            name, stride = f"stage{stage}.{index}", 2 if stage and not index else 1
            y = convolution(g, x, f"{name}.0", narrow, 1)
            y = convolution(g, y, f"{name}.1", narrow, 3, stride, groups)
            y = convolution(g, y, f"{name}.2", channels(4 * count, width), 1, activation=None)
            x = g.relu(g.add(y, shortcut(g, x, name, y.channels, stride)))
    return g.classifier(x, "classifier", CLASSES)


def shortcut(g: Graph, x: Value, name: str, count: int, stride: int) -> Value:
    """What a branch of so many channels is added to: the input, or a convolution of it where it has another shape."""
    if stride == 1 and x.channels == count:
        return x
    return convolution(g, x, f"{name}.shortcut", count, 1, stride, activation=None)


def _mobilenetv1(g: Graph, x: Value, width: float, depth: float) -> Value:
    """Howard et al., "MobileNets" (2017), table 1."""
    x = convolution(g, x, "stem", channels(32, width), 3, 2)
    table = ((64, 1, 1), (128, 2, 1), (128, 1, 1), (256, 2, 1), (256, 1, 1), (512, 2, 1), (512, 1, 5), (1024, 2, 2))
    for stage, (count, stride, repeats) in enumerate(table):
        for index in range(layers(repeats, depth)):
            name = f"stage{stage}.{index}"
            x = convolution(g, x, f"{name}.depthwise", x.channels, 3, stride if not index else 1, x.channels)
            x = convolution(g, x, f"{name}.pointwise", channels(count, width), 1)
    return g.classifier(x, "classifier", CLASSES)


#: Expansion, channels, repeats, stride and kernel of each stage.
_MOBILENETV2 = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 32, 3, 2, 3),
    (6, 64, 4, 2, 3),
    (6, 96, 3, 1, 3),
    (6, 160, 3, 2, 3),
)
_EFFICIENTNET = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
)
_MNASNET = ((1, 16, 1, 1, 3), (3, 24, 3, 2, 3), (3, 40, 3, 2, 5), (6, 80, 3, 2, 5), (6, 96, 2, 1, 3), (6, 192, 4, 2, 5))


def _inverted(table: tuple[tuple[int, int, int, int, int], ...], activation: Callable[[Graph, Value], Value]) -> Family:
    def family(g: Graph, x: Value, width: float, depth: float) -> Value:
        x = convolution(g, x, "stem", channels(32, width), 3, 2, activation=activation)
        for stage, (expansion, count, repeats, first, kernel) in enumerate(table):
            for index in range(layers(repeats, depth)):
                name, stride, before = f"stage{stage}.{index}", first if not index else 1, x
                if expansion > 1:
                    x = convolution(g, x, f"{name}.expand", expansion * x.channels, 1, activation=activation)
                x = convolution(g, x, f"{name}.depthwise", x.channels, kernel, stride, x.channels, activation)
                x = convolution(g, x, f"{name}.project", channels(count, width), 1, activation=None)
                x = g.add(x, before) if stride == 1 and x.channels == before.channels else x
        x = convolution(g, x, "head", channels(1280, max(1.0, width)), 1, activation=activation)
        return g.classifier(x, "classifier", CLASSES)

    return family


def _squeezenet(g: Graph, x: Value, width: float, depth: float) -> Value:
    """Iandola et al., "SqueezeNet" (2016), version 1.1."""
    x = g.max_pool(convolution(g, x, "stem", channels(64, width), 3, 2), 3, 2)
    for stage, counts in enumerate(((16, 16), (32, 32), (48, 48, 64, 64))):
        for index, count in enumerate(c for c in counts for _ in range(layers(1, depth))):
            name, squeezed = f"fire{stage}.{index}", channels(count, width)
            x = g.relu(g.conv(x, f"{name}.squeeze", squeezed, 1, bias=True))
            parts = [g.relu(g.conv(x, f"{name}.expand{k}", 4 * squeezed, k, bias=True)) for k in (1, 3)]
            x = g.concat(parts)
        x = g.max_pool(x, 3, 2) if stage < 2 else x
    x = g.relu(g.conv(x, "last", CLASSES, 1, bias=True))
    return g.op("Flatten", [g.op("GlobalAveragePool", [x.name], x.channels).name], CLASSES, axis=1)


def _densenet(g: Graph, x: Value, width: float, depth: float) -> Value:
    """Huang et al., "Densely Connected Convolutional Networks" (CVPR 2017), growth rate 32."""
    growth = channels(32, width)
    x = g.max_pool(convolution(g, x, "stem", 2 * growth, 7, 2), 3, 2, pad=1)
    for block, count in enumerate((6, 12, 24, 16)):
        for layer in range(layers(count, depth / 2)):
            name = f"block{block}.{layer}"
            y = g.conv(g.relu(g.batch_norm(x, f"{name}.norm0")), f"{name}.conv0", 4 * growth, 1)
            y = g.conv(g.relu(g.batch_norm(y, f"{name}.norm1")), f"{name}.conv1", growth, 3)
            x = g.concat([x, y])
        if block < 3:
            x = g.conv(
                g.relu(g.batch_norm(x, f"transition{block}.norm")), f"transition{block}.conv", x.channels // 2, 1
            )
            x = g.average_pool(x, 2, 2)
    return g.classifier(g.relu(g.batch_norm(x, "norm")), "classifier", CLASSES)


def _inception(g: Graph, x: Value, width: float, depth: float) -> Value:
    """Szegedy et al., "Going Deeper with Convolutions" (CVPR 2015), table 1, with batch normalization."""
    x = g.max_pool(convolution(g, x, "stem.0", channels(64, width), 7, 2), 3, 2, pad=1)
    x = convolution(g, convolution(g, x, "stem.1", channels(64, width), 1), "stem.2", channels(192, width), 3)
    stages = (((64, 96, 128, 16, 32, 32), 2), ((192, 112, 224, 24, 64, 64), 5), ((320, 160, 320, 32, 128, 128), 2))
    for stage, (counts, repeats) in enumerate(stages):
        x = g.max_pool(x, 3, 2, pad=1)
        for index in range(layers(repeats, depth)):
            name, (a, b, c, d, e, f) = f"mixed{stage}.{index}", (channels(count, width) for count in counts)
            pooled = g.max_pool(x, 3, 1, pad=1)
            parts = [
                convolution(g, x, f"{name}.0", a, 1),
                convolution(g, convolution(g, x, f"{name}.1.0", b, 1), f"{name}.1.1", c, 3),
                convolution(g, convolution(g, x, f"{name}.2.0", d, 1), f"{name}.2.1", e, 5),
                convolution(g, pooled, f"{name}.3", f, 1),
            ]
            x = g.concat(parts)
    return g.classifier(x, "classifier", CLASSES)


def _darknet(g: Graph, x: Value, width: float, depth: float) -> Value:
    """Redmon and Farhadi, "YOLOv3" (2018): residual blocks of a 1x1 and a 3x3 convolution, here with SiLU."""
    x = convolution(g, x, "stem", channels(32, width), 3, activation=Graph.silu)
    for stage, (count, repeats) in enumerate(((64, 1), (128, 2), (256, 4), (512, 4), (1024, 2))):
        x = convolution(g, x, f"down{stage}", channels(count, width), 3, 2, activation=Graph.silu)
        for index in range(layers(repeats, depth)):
            y = convolution(g, x, f"stage{stage}.{index}.0", channels(count // 2, width), 1, activation=Graph.silu)
            x = g.add(x, convolution(g, y, f"stage{stage}.{index}.1", x.channels, 3, activation=Graph.silu))
    return g.classifier(x, "classifier", CLASSES)


FAMILIES: Mapping[str, Family] = {
    "vgg": _vgg,
    "resnet": _resnet,
    "bottleneck": _bottleneck,
    "resnext": _resnext,
    "mobilenetv1": _mobilenetv1,
    "mobilenetv2": _inverted(_MOBILENETV2, Graph.relu6),
    "efficientnet": _inverted(_EFFICIENTNET, Graph.relu6),
    "mnasnet": _inverted(_MNASNET, Graph.relu),
    "efficientnet_silu": _inverted(_EFFICIENTNET, Graph.silu),
    "squeezenet": _squeezenet,
    "densenet": _densenet,
    "inception": _inception,
    "darknet": _darknet,
}
