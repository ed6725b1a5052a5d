"""ONNX models in QDQ form, and what ONNX Runtime makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

import evo_tvm
from evo_tvm.frontend import import_onnx
from evo_tvm.graph import Graph
from evo_tvm.pipeline import CLEAN_UP
from evo_tvm.plan.read_relax import read_relax
from tests.onnx_builder import Builder
from tests.onnx_runtime import exact_session


@dataclass(frozen=True)
class Steps:
    """Bytes stand for (byte - zero) * scale."""

    scale: float
    zero: int = 0
    dtype: str = "uint8"


class QuantizedBuilder(Builder):
    """Collects the nodes of a model in QDQ form; `steps` remembers what the bytes of a value stand for."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.steps: dict[str, Steps] = {}

    def quantized(self, x: str, scale: float, zero: int = 0, dtype: str = "uint8") -> str:
        """`x` as bytes, and back."""
        q = self.node("QuantizeLinear", x, self.constant(scale), self.constant(zero, dtype))
        return self.dequantized(q, scale, zero, dtype)

    def image(self, *shape: int, scale: float = 0.03, zero: int = 120) -> str:
        """An input of normal numbers, as bytes."""
        return self.quantized(self.input(*shape), scale, zero)

    def bytes(self, *shape: int, dtype: str = "uint8") -> str:
        """An input of any bytes."""
        name, info = self.input(*shape, dtype=dtype), np.iinfo(dtype)
        self.inputs[name] = self.rng.integers(info.min, info.max, shape, dtype, endpoint=True)
        return name

    def dequantized(self, q: str, scale: float, zero: int = 0, dtype: str = "uint8") -> str:
        """What the bytes `q` stand for."""
        y = self.node("DequantizeLinear", q, self.constant(scale), self.constant(zero, dtype))
        self.steps[y] = Steps(float(np.float32(scale)), zero, dtype)
        return y

    def integers(self, codes: np.ndarray, scale: np.ndarray | float, zero: int = 0, axis: int = 0) -> str:
        """A constant of integers, with one scale or one for each index of `axis`."""
        scale = np.asarray(scale, np.float32)
        zeros = self.constant(np.full(scale.shape, zero), str(codes.dtype))
        attrs = {"axis": axis} if scale.ndim else {}
        return self.node(
            "DequantizeLinear", self.constant(codes, str(codes.dtype)), self.constant(scale), zeros, **attrs
        )

    def quantized_weights(self, *shape: int, each: bool = True) -> tuple[str, np.ndarray]:
        """Random int8 weights, OIHW, and their scales: one for each output channel, or one."""
        scale = self.rng.uniform(0.001, 0.01, shape[0] if each else ()).astype(np.float32)
        return self.integers(self.rng.integers(-127, 128, shape).astype(np.int8), scale), scale

    def quantized_conv(
        self,
        x: str,
        ic: int,
        oc: int,
        k: int = 1,
        *,
        each: bool = True,
        bias: bool = True,
        pads: Sequence[int] | None = None,
        **attrs: int | Sequence[int],
    ) -> str:
        """A convolution of what `quantized` made, of int8 weights with an int32 bias. Its result is float."""
        weight, scale = self.quantized_weights(oc, ic // int(attrs.get("group", 1)), k, k, each=each)  # type: ignore[call-overload]
        operands = [x, weight]
        if bias:
            codes = self.rng.integers(-3000, 3000, oc).astype(np.int32)
            operands.append(self.integers(codes, np.broadcast_to(scale * np.float32(self.steps[x].scale), (oc,))))
        return self.node("Conv", *operands, pads=list(pads or [k // 2] * 4), **attrs)

    def layer(self, x: str, ic: int, oc: int, k: int = 1, zero: int = 77, relu: bool = False, **attrs: object) -> str:
        """A convolution, whose result is quantized to a range that it fills; with a ReLU before that, from zero on."""
        terms = ic // int(attrs.get("group", 1)) * k * k  # type: ignore[call-overload]
        y = self.quantized_conv(x, ic, oc, k, **attrs)  # type: ignore[arg-type]
        scale = 0.02 * math.sqrt(terms)
        return self.quantized(self.node("Relu", y), scale / 2) if relu else self.quantized(y, scale, zero)


def graph_of(b: Builder) -> Graph:
    """The kernel graph of the model, before anything is made of it."""
    module = import_onnx(b.model()).module
    for step in CLEAN_UP:
        module = step(module)
    return read_relax(module)


def in_onnx_runtime(b: Builder) -> list[np.ndarray]:
    """The outputs of the model, all optimizations on."""
    return list(exact_session(b.model()).run(None, dict(b.inputs)))


def compiled(b: Builder, target: str = "host", num_threads: int = 1) -> list[np.ndarray]:
    """The outputs of the compiled model, run in an arena that holds other bytes before."""
    artifact = evo_tvm.compile(b.model(), target, num_threads=num_threads)
    with artifact.module(num_threads=num_threads) as module:
        module._arena[...] = 0xA5
        return list(module.run(dict(b.inputs)).values())


def quanta_apart(b: QuantizedBuilder, run: Callable[[Builder], list[np.ndarray]] = compiled) -> list[np.ndarray]:
    """By how many steps each output, which `quantized` made, differs from ONNX Runtime's. They are not all alike."""
    found = []
    for name, got, wanted in zip(b.outputs, run(b), in_onnx_runtime(b), strict=True):
        assert got.shape == wanted.shape and got.dtype == wanted.dtype
        assert len(np.unique(wanted)) > 8, "the bytes are cut off, or all alike: nothing is compared"
        found.append(np.abs(np.rint((got.astype(np.float64) - wanted) / b.steps[name].scale)))
    return found


def assert_same_bytes(b: QuantizedBuilder, **how: object) -> None:
    """The compiled model gives the bytes that ONNX Runtime gives."""
    for name, apart in zip(b.outputs, quanta_apart(b, lambda b: compiled(b, **how)), strict=True):  # type: ignore[arg-type]
        assert apart.max() == 0, f"{name}: {np.count_nonzero(apart)} of {apart.size} differ, by up to {apart.max()}"
