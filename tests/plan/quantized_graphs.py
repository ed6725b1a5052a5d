"""Small kernel graphs with bytes in them, written by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from evo_tvm.graph import Codes, Value, real
from tests.plan.graphs import Draft


class QuantizedDraft(Draft):
    """A draft with quantizations; a scale of 0.5 and a zero point of 10 where nothing else is said."""

    def bytes(self, name: str, *shape: int, dtype: str = "uint8") -> str:
        """An input of bytes."""
        self.values[name] = Value(name, shape, dtype)
        self.inputs.append(name)
        return name

    def quantize(self, name: str, x: str, scale: float = 0.5, zero_point: int = 10, dtype: str = "uint8") -> str:
        self.same("quantize", name, x, scale=scale, zero_point=zero_point, dtype=dtype)
        self.values[name] = replace(self.values[name], dtype=dtype)
        return name

    def dequantize(self, name: str, q: str, scale: float = 0.5, zero_point: int = 10) -> str:
        return self.same("dequantize", name, q, scale=scale, zero_point=zero_point)

    def pool(self, name: str, x: str, kind: str = "max_pool2d", **attrs: Any) -> str:
        """Over 2 x 2 pixels."""
        n, c, h, w = self.values[x].shape
        around = {"pool_size": (2, 2), "stride": (2, 2), "padding": (0,) * 4, "dilation": (1, 1)}
        return self.op(kind, name, [x], (n, c, h // 2, w // 2), **{**around, "count_include_pad": False, **attrs})

    def concat(self, name: str, *inputs: str) -> str:
        shapes = [self.values[x].shape for x in inputs]
        return self.op("concat", name, inputs, (shapes[0][0], sum(s[1] for s in shapes), *shapes[0][2:]), axis=1)

    def weights(
        self, name: str, codes: np.ndarray, scale: float | list[float] = 0.25, zero_point: int = 0, axis: int = 0
    ) -> str:
        """A constant of which the integers are known."""
        scales = np.asarray(scale, np.float32)
        known = Codes(codes, scales, np.full(scales.shape, zero_point, codes.dtype), axis)
        self.values[name] = Value(name, codes.shape, "float32", real(known), codes=known)
        return name

    def integer_conv(self, name: str, x: str, weight: str, padding: int = 1, **attrs: Any) -> str:
        """A convolution for which no algorithm is chosen yet; depthwise where `groups` says so."""
        n, channels, h, w = self.values[x].shape
        oc, _, kh, kw = self.values[weight].shape
        around = {"stride": (1, 1), "padding": (padding,) * 4, "dilation": (1, 1), "groups": 1, **attrs}
        kind = "depthwise_conv2d" if around["groups"] == channels > 1 else "conv2d"
        rows, columns = around["dilation"]
        size = (h + 2 * padding - rows * (kh - 1), w + 2 * padding - columns * (kw - 1))
        return self.op(kind, name, [x, weight], (n, oc, *size), **around)
