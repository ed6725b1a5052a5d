"""A small detection network in the manner of the YOLO family, up to where boxes are decoded."""

from __future__ import annotations

import numpy as np

from evo_tvm.bench.graph import Graph, Value

WIDTHS = (16, 32, 64, 128, 256)
# Bottlenecks in the blocks of the backbone, at 1/4 to 1/32 of the image's size.
DEPTHS = (1, 2, 2, 1)
BOX_BINS = 64  # four sides, each a distribution over 16 distances
CLASSES = 80


def yolo(g: Graph, x: Value) -> dict[str, Value]:
    """Redmon et al., "You Only Look Once" (CVPR 2016), with what its successors put inside.

    Blocks split their channels and concatenate all partial results (Wang et al., "CSPNet", CVPRW 2020), SiLU
    activations, spatial pyramid pooling from chained max pools (He et al., 2015), and features merged from coarse to
    fine and back (Liu et al., "Path Aggregation Network", CVPR 2018). `boxes_S` [batch,64,h/S,w/S] and `scores_S`
    [batch,80,h/S,w/S] for the strides S of 8, 16 and 32; the sides of the image are multiples of 32.
    """
    x = _conv(g, x, "stem", WIDTHS[0], 3, stride=2)
    levels = []
    for stage, (width, depth) in enumerate(zip(WIDTHS[1:], DEPTHS, strict=True)):
        x = _conv(g, x, f"down{stage}", width, 3, stride=2)
        x = _partial_block(g, x, f"stage{stage}", width, depth, shortcut=True)
        levels.append(x)
    _, fine, middle, coarse = levels
    coarse = _pyramid_pooling(g, coarse, "pooling")

    middle_down = _merge(g, "top_down0", _upsample(g, coarse), middle, WIDTHS[3])
    fine = _merge(g, "top_down1", _upsample(g, middle_down), fine, WIDTHS[2])
    middle = _merge(g, "bottom_up0", _conv(g, fine, "up_conv0", WIDTHS[2], 3, stride=2), middle_down, WIDTHS[3])
    coarse = _merge(g, "bottom_up1", _conv(g, middle, "up_conv1", WIDTHS[3], 3, stride=2), coarse, WIDTHS[4])

    outputs = {}
    for stride, level in ((8, fine), (16, middle), (32, coarse)):
        for part, channels in (("boxes", BOX_BINS), ("scores", CLASSES)):
            name = f"{part}_{stride}"
            y = _conv(g, _conv(g, level, f"{name}.0", WIDTHS[2], 3), f"{name}.1", WIDTHS[2], 3)
            y = g.conv(y, f"{name}.2", channels, 1, bias=True)
            outputs[name] = g.op("Sigmoid", [y.name], channels) if part == "scores" else y
    return outputs


def _conv(g: Graph, x: Value, name: str, channels: int, kernel: int, stride: int = 1) -> Value:
    return g.silu(g.batch_norm(g.conv(x, f"{name}.conv", channels, kernel, stride=stride), f"{name}.bn"))


def _partial_block(g: Graph, x: Value, name: str, channels: int, depth: int, shortcut: bool) -> Value:
    """Half of the channels goes through `depth` bottlenecks, and every result of the way is concatenated."""
    parts = g.split(_conv(g, x, f"{name}.in", channels, 1), 2)
    for index in range(depth):
        y = _conv(g, parts[-1], f"{name}.{index}.0", channels // 2, 3)
        y = _conv(g, y, f"{name}.{index}.1", channels // 2, 3)
        parts.append(g.add(parts[-1], y) if shortcut else y)
    return _conv(g, g.concat(parts), f"{name}.out", channels, 1)


def _pyramid_pooling(g: Graph, x: Value, name: str) -> Value:
    levels = [_conv(g, x, f"{name}.in", x.channels // 2, 1)]
    for _ in range(3):
        levels.append(g.max_pool(levels[-1], 5, 1, pad=2))
    return _conv(g, g.concat(levels), f"{name}.out", x.channels, 1)


def _merge(g: Graph, name: str, x: Value, other: Value, channels: int) -> Value:
    return _partial_block(g, g.concat([x, other]), name, channels, 1, shortcut=False)


def _upsample(g: Graph, x: Value) -> Value:
    """Each pixel four times."""
    scales = g.constant("upsample.scales", np.array([1, 1, 2, 2], np.float32))
    return g.op(
        "Resize",
        [x.name, "", scales],
        x.channels,
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )
