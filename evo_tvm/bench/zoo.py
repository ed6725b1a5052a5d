"""ONNX models of known architectures, for tests and benchmarks; with random weights unless others are given.

Batch normalizations are left in and no operators are fused, as in the models that users bring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import onnx

from evo_tvm.bench.graph import LINEAR_GAIN, RESIDUAL_GAIN, Graph, RandomWeights, Value, Weights
from evo_tvm.bench.mobilenetv3 import mobilenetv3
from evo_tvm.bench.vit import vit
from evo_tvm.bench.yolo import yolo
from evo_tvm.errors import UsageError

#: What an architecture gives: `logits`, or several outputs by name.
Architecture: TypeAlias = Callable[[Graph, Value], "Value | Mapping[str, Value]"]

CLASSES = 1000


def build(name: str, batch: int = 1, size: int | None = None, weights: Weights | None = None) -> onnx.ModelProto:
    """The model `name` for inputs `input` [batch,3,size,size], giving `logits` [batch,1000]; `yolo` gives feature maps.

    Images are of 224 pixels a side where no size is given, for `yolo` 320.
    Raises UsageError for a name that is not in NAMES.
    """
    if name not in ARCHITECTURES:
        raise UsageError(f"there is no model {name!r} in the zoo", hint=f"Choose one of {', '.join(NAMES)}.")
    size = size or SIZES.get(name, 224)
    return build_graph(name, ARCHITECTURES[name], (batch, 3, size, size), weights or RandomWeights())


def build_graph(
    name: str, architecture: Architecture, shape: tuple[int | str, int, int, int], weights: Weights
) -> onnx.ModelProto:
    """The model of an architecture, from `input` of this shape to its outputs; a text as batch leaves it open."""
    graph = Graph(name, weights)
    outputs = architecture(graph, graph.input("input", shape))
    return graph.model({"logits": outputs} if isinstance(outputs, Value) else outputs)


def resnet(blocks: tuple[int, int, int, int], bottleneck: bool) -> Architecture:
    """He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), table 1.

    The stride of a bottleneck is in its 3x3 convolution, as in all frameworks since (Goyal et al., 2017).
    """
    block, expansion = (_bottleneck_block, 4) if bottleneck else (_basic_block, 1)

    def architecture(g: Graph, x: Value) -> Value:
        x = g.relu(g.batch_norm(g.conv(x, "conv1", 64, 7, stride=2), "bn1"))
        x = g.max_pool(x, 3, 2, pad=1)
        for stage, count in enumerate(blocks):
            for index in range(count):
                name, stride = f"layer{stage + 1}.{index}", 2 if stage > 0 and index == 0 else 1
                width = 64 << stage
                shortcut = x
                if stride != 1 or x.channels != width * expansion:
                    projected = g.conv(x, f"{name}.downsample.0", width * expansion, 1, stride=stride)
                    shortcut = g.batch_norm(projected, f"{name}.downsample.1", gain=LINEAR_GAIN)
                x = g.relu(g.add(block(g, x, name, width, stride), shortcut))
        return g.classifier(x, "fc", CLASSES)

    return architecture


def _basic_block(g: Graph, x: Value, name: str, width: int, stride: int) -> Value:
    y = g.relu(g.batch_norm(g.conv(x, f"{name}.conv1", width, 3, stride=stride), f"{name}.bn1"))
    return g.batch_norm(g.conv(y, f"{name}.conv2", width, 3), f"{name}.bn2", gain=RESIDUAL_GAIN)


def _bottleneck_block(g: Graph, x: Value, name: str, width: int, stride: int) -> Value:
    y = g.relu(g.batch_norm(g.conv(x, f"{name}.conv1", width, 1), f"{name}.bn1"))
    y = g.relu(g.batch_norm(g.conv(y, f"{name}.conv2", width, 3, stride=stride), f"{name}.bn2"))
    return g.batch_norm(g.conv(y, f"{name}.conv3", 4 * width, 1), f"{name}.bn3", gain=RESIDUAL_GAIN)


def cifar_resnet(blocks_per_stage: int, classes: int, mean: float, deviation: float) -> Architecture:
    """He et al. (CVPR 2016), section 4.2: three stages of 16, 32 and 64 channels, for small images in [0, 1]."""

    def architecture(g: Graph, x: Value) -> Value:
        x = g.relu(g.batch_norm(g.conv(g.normalize(x, mean, deviation), "conv", 16, 3), "bn"))
        for index in range(3 * blocks_per_stage):
            stage, name = index // blocks_per_stage, f"blocks.{index}"
            width, stride = 16 << stage, 2 if stage > 0 and index % blocks_per_stage == 0 else 1
            shortcut = x
            if stride != 1:
                projected = g.conv(x, f"{name}.shortcut.0", width, 1, stride=stride)
                shortcut = g.batch_norm(projected, f"{name}.shortcut.1", gain=LINEAR_GAIN)
            x = g.relu(g.add(_basic_block(g, x, name, width, stride), shortcut))
        return g.classifier(x, "fc", classes)

    return architecture


def mobilenetv2(g: Graph, x: Value) -> Value:
    """Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (CVPR 2018), table 2."""
    # expansion, channels, repeats, stride of the first
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    x = g.relu6(g.batch_norm(g.conv(x, "features.0.0", 32, 3, stride=2), "features.0.1"))
    rows = [(e, c, s if index == 0 else 1) for e, c, repeats, s in table for index in range(repeats)]
    for number, (expansion, channels, stride) in enumerate(rows, 1):
        name, shortcut = f"features.{number}", x
        residual = stride == 1 and x.channels == channels
        if expansion != 1:
            expanded = g.conv(x, f"{name}.expand", expansion * x.channels, 1)
            x = g.relu6(g.batch_norm(expanded, f"{name}.expand_bn"))
        x = g.conv(x, f"{name}.depthwise", x.channels, 3, stride=stride, groups=x.channels)
        x = g.relu6(g.batch_norm(x, f"{name}.depthwise_bn"))
        gain = RESIDUAL_GAIN if residual else LINEAR_GAIN
        x = g.batch_norm(g.conv(x, f"{name}.project", channels, 1), f"{name}.project_bn", gain=gain)
        x = g.add(x, shortcut) if residual else x
    x = g.relu6(g.batch_norm(g.conv(x, "features.18.0", 1280, 1), "features.18.1"))
    return g.classifier(x, "classifier", CLASSES)


def efficientnet_lite0(g: Graph, x: Value) -> Value:
    """EfficientNet-Lite0: Tan and Le, "EfficientNet" (ICML 2019), table 1, with ReLU6 and no squeeze-and-excitation.

    Names of parameters and the padding, TensorFlow's SAME for an even input, are those of its PyTorch checkpoint.
    """
    epsilon = 1e-3
    # repeats, kernel, stride of the first, expansion, channels
    table = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )
    x = g.conv(x, "_conv_stem", 32, 3, stride=2, pads=_same_pads(3, 2))
    x = g.relu6(g.batch_norm(x, "_bn0", epsilon=epsilon))
    rows = [(k, s if index == 0 else 1, e, c) for repeats, k, s, e, c in table for index in range(repeats)]
    for number, (kernel, stride, expansion, channels) in enumerate(rows):
        name, shortcut = f"_blocks.{number}", x
        residual = stride == 1 and x.channels == channels
        if expansion != 1:
            expanded = g.conv(x, f"{name}._expand_conv", expansion * x.channels, 1)
            x = g.relu6(g.batch_norm(expanded, f"{name}._bn0", epsilon=epsilon))
        x = g.conv(
            x,
            f"{name}._depthwise_conv",
            x.channels,
            kernel,
            stride=stride,
            pads=_same_pads(kernel, stride),
            groups=x.channels,
        )
        x = g.relu6(g.batch_norm(x, f"{name}._bn1", epsilon=epsilon))
        gain = RESIDUAL_GAIN if residual else LINEAR_GAIN
        x = g.batch_norm(g.conv(x, f"{name}._project_conv", channels, 1), f"{name}._bn2", gain=gain, epsilon=epsilon)
        x = g.add(x, shortcut) if residual else x
    x = g.relu6(g.batch_norm(g.conv(x, "_conv_head", 1280, 1), "_bn1", epsilon=epsilon))
    return g.classifier(x, "_fc", CLASSES)


def _same_pads(kernel: int, stride: int) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of TensorFlow's SAME padding where the stride divides the size of the image."""
    total = kernel - stride
    return total // 2, total // 2, total - total // 2, total - total // 2


def densenet121(g: Graph, x: Value) -> Value:
    """Huang et al., "Densely Connected Convolutional Networks" (CVPR 2017), table 1, growth rate 32."""
    growth, blocks = 32, (6, 12, 24, 16)
    x = g.relu(g.batch_norm(g.conv(x, "features.conv0", 64, 7, stride=2), "features.norm0"))
    x = g.max_pool(x, 3, 2, pad=1)
    for block, layers in enumerate(blocks, 1):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            y = g.conv(g.relu(g.batch_norm(x, f"{name}.norm1")), f"{name}.conv1", 4 * growth, 1)
            y = g.conv(g.relu(g.batch_norm(y, f"{name}.norm2")), f"{name}.conv2", growth, 3)
            x = g.concat([x, y])
        if block < len(blocks):
            name = f"features.transition{block}"
            x = g.conv(g.relu(g.batch_norm(x, f"{name}.norm")), f"{name}.conv", x.channels // 2, 1)
            x = g.average_pool(x, 2, 2)
    return g.classifier(g.relu(g.batch_norm(x, "features.norm5")), "classifier", CLASSES)


def vgg11(g: Graph, x: Value) -> Value:
    """Simonyan and Zisserman, "Very Deep Convolutional Networks" (ICLR 2015), the convolutions of configuration A.

    With batch normalization after each; global average pooling and one dense layer replace the three dense layers,
    which hold 93 % of the weights.
    """
    stages = ((64,), (128,), (256, 256), (512, 512), (512, 512))
    for stage, widths in enumerate(stages):
        for index, width in enumerate(widths):
            name = f"features.{stage}.{index}"
            x = g.relu(g.batch_norm(g.conv(x, f"{name}.conv", width, 3, bias=True), f"{name}.bn"))
        x = g.max_pool(x, 2, 2)
    return g.classifier(x, "classifier", CLASSES)


ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": resnet((2, 2, 2, 2), bottleneck=False),
    "resnet34": resnet((3, 4, 6, 3), bottleneck=False),
    "resnet50": resnet((3, 4, 6, 3), bottleneck=True),
    "mobilenetv2": mobilenetv2,
    "mobilenetv3": mobilenetv3,
    "densenet121": densenet121,
    "vgg11": vgg11,
    "efficientnet_lite0": efficientnet_lite0,
    "yolo": yolo,
    "vit": vit,
}
SIZES = {"yolo": 320}
NAMES = tuple(ARCHITECTURES)
