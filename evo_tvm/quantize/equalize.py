"""Cross-layer equalization: `W2 f(W1 x + b1)  =>  (W2 S) f(S^-1 W1 x + S^-1 b1)`, S chosen so that ranges are equal.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019), section 4.1. f is
nothing or a ReLU. Theirs takes ReLU6 for a ReLU; here layers with a Clip between them stay as they are, for without
its bound the trained EfficientNet-Lite0 agrees with itself on less than half of the photographs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from evo_tvm.quantize.constants import attribute_int, constant_input, only_consumer, set_constant
from evo_tvm.quantize.params import Array

_ROUNDS = 40
#: Equalization is done when no factor differs from one by more.
_DONE = 1e-3


@dataclass(frozen=True)
class _Pair:
    """Two convolutions, the channels of the first read by the second alone."""

    first: ir.Node
    second: ir.Node


def equalize(model: ir.Model) -> int:
    """Equalize the prepared `model`, in place; return how many pairs of layers there were."""
    pairs = list(_pairs(model))
    weights = {node: _float64(node, 1) for pair in pairs for node in (pair.first, pair.second)}
    biases = {pair.first: _float64(pair.first, 2) for pair in pairs}
    for _ in range(_ROUNDS):
        if max((_equalize(pair, weights, biases) for pair in pairs), default=0.0) < _DONE:
            break
    for node, array in weights.items():
        set_constant(node, 1, f"{node.name}.weight", array.astype(np.float32))
    for node, array in biases.items():
        if array.size:
            set_constant(node, 2, f"{node.name}.bias", array.astype(np.float32))
    return len(pairs)


def _pairs(model: ir.Model) -> Iterator[_Pair]:
    for node in model.graph:
        if not _is_plain(node) or attribute_int(node, "group", 1) not in (1, _outputs(node)):
            continue
        after = only_consumer(node.outputs[0])
        if after is not None and after.op_type == "Relu":
            after = only_consumer(after.outputs[0])
        if after is not None and _is_plain(after) and attribute_int(after, "group", 1) in (1, _outputs(after)):
            yield _Pair(node, after)


def _is_plain(node: ir.Node) -> bool:
    """Whether `node` is a convolution with constant weights and bias."""
    if node.op_type != "Conv" or node.domain or constant_input(node, 1) is None:
        return False
    return len(node.inputs) < 3 or node.inputs[2] is None or constant_input(node, 2) is not None


def _outputs(node: ir.Node) -> int:
    weights = constant_input(node, 1)
    assert weights is not None
    return len(weights)


def _float64(node: ir.Node, index: int) -> Array:
    found = constant_input(node, index)
    return np.zeros(0) if found is None else found.astype(np.float64)


def _equalize(pair: _Pair, weights: dict[ir.Node, Array], biases: dict[ir.Node, Array]) -> float:
    """Give both sides of each channel the same largest weight; return how far the factors were from one."""
    first, second = weights[pair.first], weights[pair.second]
    depthwise = attribute_int(pair.second, "group", 1) > 1
    ahead = np.abs(first).max(axis=tuple(range(1, first.ndim)))
    behind = np.abs(second).max(axis=tuple(a for a in range(second.ndim) if a != (0 if depthwise else 1)))
    alive = (ahead > 0) & (behind > 0)
    factor = np.where(alive, np.sqrt(np.where(alive, ahead, 1) / np.where(alive, behind, 1)), 1.0)
    along = (-1,) + (1,) * (first.ndim - 1)
    weights[pair.first] = first / factor.reshape(along)
    if biases[pair.first].size:
        biases[pair.first] = biases[pair.first] / factor
    weights[pair.second] = second * factor.reshape(along if depthwise else (1, -1, *along[2:]))
    return float(np.abs(factor - 1).max(initial=0.0))
