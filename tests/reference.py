"""Convolutions in float64, written as they are defined, and small ONNX models made of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.onnx_builder import Builder

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]


def conv2d(
    data: np.ndarray,
    weight: np.ndarray,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> np.ndarray:
    """data: NCHW; weight: (OC, IC/groups, KH, KW); padding: (top, left, bottom, right)."""
    top, left, bottom, right = padding
    x = np.pad(data.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    oc, ic, kh, kw = weight.shape
    h = (x.shape[2] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    w = (x.shape[3] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    x = x.reshape(x.shape[0], groups, ic, *x.shape[2:])
    grouped = weight.astype(np.float64).reshape(groups, oc // groups, ic, kh, kw)
    result = np.zeros((x.shape[0], groups, oc // groups, h, w))
    for r in range(kh):
        for s in range(kw):
            y, z = r * dilation[0], s * dilation[1]
            window = x[..., y : y + stride[0] * (h - 1) + 1 : stride[0], z : z + stride[1] * (w - 1) + 1 : stride[1]]
            result += np.einsum("ngihw,goi->ngohw", window, grouped[..., r, s], optimize=True)
    return result.reshape(x.shape[0], oc, h, w)


def depthwise_conv2d(
    data: np.ndarray,
    weight: np.ndarray,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
) -> np.ndarray:
    """Each channel of `data` (NCHW) by its own filter of `weight` (C, 1, KH, KW)."""
    return conv2d(data, weight, stride, padding, dilation, groups=len(weight))


def conv2d_transpose(
    data: np.ndarray, weight: np.ndarray, stride: Pair, dilation: Pair, cut: Pair, out_size: Pair
) -> np.ndarray:
    """Each pixel of `data` (NCHW) times the kernel `weight` (IC, OC, KH, KW), added where it belongs.

    cut: rows and columns that are left out at the top and the left; out_size: (OH, OW) of what is kept.
    """
    n, _, h, w = data.shape
    _, oc, kh, kw = weight.shape
    reach = [(e - 1) * s + d * (k - 1) + 1 for e, s, d, k in zip((h, w), stride, dilation, (kh, kw), strict=True)]
    full = np.zeros((n, oc, *(max(r, c + o) for r, c, o in zip(reach, cut, out_size, strict=True))))
    for r in range(kh):
        for s in range(kw):
            y, z = r * dilation[0], s * dilation[1]
            part = np.einsum("nihw,io->nohw", data.astype(np.float64), weight[:, :, r, s].astype(np.float64))
            full[..., y : y + (h - 1) * stride[0] + 1 : stride[0], z : z + (w - 1) * stride[1] + 1 : stride[1]] += part
    return full[:, :, cut[0] : cut[0] + out_size[0], cut[1] : cut[1] + out_size[1]]


def outputs(b: Builder) -> list[np.ndarray]:
    """The outputs of `b`'s model in float64."""
    values = {name: array.astype(np.float64) for name, array in (*b.inputs.items(), *b.constants.items())}
    for node in b.nodes:
        attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        values[node.output[0]] = _OPERATORS[node.op_type](*(values[name] for name in node.input), **attrs)
    return [values[name] for name in b.outputs]


def _conv(x, w, bias=None, strides=(1, 1), dilations=(1, 1), group=1, pads=(0, 0, 0, 0)):  # type: ignore[no-untyped-def]
    return _biased(conv2d(x, w, tuple(strides), tuple(pads), tuple(dilations), group), bias)


def _conv_transpose(  # type: ignore[no-untyped-def]
    x, w, bias=None, strides=(1, 1), dilations=(1, 1), pads=(0, 0, 0, 0), output_padding=(0, 0)
):
    size = tuple(
        (x.shape[2 + a] - 1) * strides[a]
        + dilations[a] * (w.shape[2 + a] - 1)
        + 1
        + output_padding[a]
        - sum(pads[a::2])
        for a in range(2)
    )
    return _biased(conv2d_transpose(x, w, tuple(strides), tuple(dilations), tuple(pads[:2]), size), bias)  # type: ignore[arg-type]


def _biased(y: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)


_OPERATORS: dict[str, Callable[..., np.ndarray]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Relu": lambda x: np.maximum(x, 0),
    "LeakyRelu": lambda x, alpha: np.where(x < 0, alpha * x, x),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh,
    "Clip": np.clip,
    "Add": np.add,
    "Mul": np.multiply,
}
