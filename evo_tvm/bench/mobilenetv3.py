"""MobileNetV3-Large: hard-swish, and gates over whole channels between depthwise and 1x1 convolutions."""

from __future__ import annotations

from evo_tvm.bench.graph import LINEAR_GAIN, RESIDUAL_GAIN, Graph, Value

CLASSES = 1000
#: Kernel, expanded channels, channels, gated, hard-swish, stride.
_BLOCKS = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
_EPSILON = 1e-3
#: Gates of random weights lie around one half: the next layer makes up for it.
_UNGATE = 2.0


def mobilenetv3(g: Graph, x: Value) -> Value:
    """Howard et al., "Searching for MobileNetV3" (ICCV 2019), table 1.

    Activations are the operators that PyTorch exports, and the gates' two layers are 1x1 convolutions, as there.
    """
    x = _hard_swish(g, _conv(g, x, "features.0", 16, 3, stride=2))
    for number, (kernel, expanded, channels, gated, swish, stride) in enumerate(_BLOCKS, 1):
        name, shortcut = f"features.{number}", x
        residual = stride == 1 and x.channels == channels
        activation = _hard_swish if swish else Graph.relu
        if expanded != x.channels:
            x = activation(g, _conv(g, x, f"{name}.expand", expanded, 1))
        x = activation(g, _conv(g, x, f"{name}.depthwise", expanded, kernel, stride=stride, groups=expanded))
        if gated:
            x = _gated(g, x, f"{name}.gate")
        gain = (RESIDUAL_GAIN if residual else LINEAR_GAIN) * (_UNGATE if gated else 1.0)
        x = _conv(g, x, f"{name}.project", channels, 1, gain=gain)
        x = g.add(x, shortcut) if residual else x
    x = _hard_swish(g, _conv(g, x, "features.16", 960, 1))
    pooled = g.op("GlobalAveragePool", [x.name], x.channels)
    hidden = _hard_swish(g, _dense(g, g.op("Flatten", [pooled.name], x.channels, axis=1), "classifier.0", 1280))
    return _dense(g, hidden, "classifier.1", CLASSES)


def _conv(
    g: Graph, x: Value, name: str, channels: int, kernel: int, *, stride: int = 1, groups: int = 1, gain: float = 1.0
) -> Value:
    x = g.conv(x, f"{name}.conv", channels, kernel, stride=stride, groups=groups)
    return g.batch_norm(x, f"{name}.bn", gain=gain, epsilon=_EPSILON)


def _dense(g: Graph, x: Value, name: str, channels: int) -> Value:
    parameters = [g.parameter(f"{name}.weight", (channels, x.channels)), g.parameter(f"{name}.bias", (channels,))]
    return g.op("Gemm", [x.name, *parameters], channels, name, transB=1)


def _hard_swish(g: Graph, x: Value) -> Value:
    return g.op("HardSwish", [x.name], x.channels)


def _gated(g: Graph, x: Value, name: str) -> Value:
    """Hu et al., "Squeeze-and-Excitation Networks" (CVPR 2018): channels scaled by what their means say."""
    squeezed = _divisible(x.channels / 4)
    pooled = g.op("GlobalAveragePool", [x.name], x.channels)
    hidden = g.relu(g.conv(pooled, f"{name}.squeeze", squeezed, 1, bias=True))
    scores = g.conv(hidden, f"{name}.excite", x.channels, 1, bias=True)
    gate = g.op("HardSigmoid", [scores.name], x.channels, alpha=1 / 6, beta=0.5)
    return g.op("Mul", [x.name, gate.name], x.channels)


def _divisible(channels: float) -> int:
    """The nearest multiple of 8, not more than a tenth below."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
