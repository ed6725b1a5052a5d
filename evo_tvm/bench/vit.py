"""A small vision transformer, node by node as PyTorch's exporter writes it."""

from __future__ import annotations

import numpy as np

from evo_tvm.bench.graph import LINEAR_GAIN, RESIDUAL_GAIN, Graph, Value

PATCH, WIDTH, HEADS, LAYERS = 16, 192, 3, 12
HEAD_WIDTH = WIDTH // HEADS
CLASSES = 1000


def vit(g: Graph, x: Value) -> Value:
    """Dosovitskiy et al., "An Image is Worth 16x16 Words" (ICLR 2021), in the size of DeiT-Ti.

    That size is from Touvron et al., "Training data-efficient image transformers" (ICML 2021), table 1. The image is of
    224x224 pixels: its 196 patches and the class token make 197 tokens.
    """
    tokens = (224 // PATCH) ** 2
    x = g.conv(x, "patch_embed.proj", WIDTH, PATCH, stride=PATCH, pads=(0, 0, 0, 0), bias=True)
    x = g.op("Reshape", [x.name, _integers(g, 0, WIDTH, tokens)], WIDTH)
    x = g.op("Transpose", [x.name], WIDTH, perm=[0, 2, 1])
    x = g.op("Concat", [_class_tokens(g, x), x.name], WIDTH, axis=1)
    x = g.op("Add", [x.name, g.parameter("pos_embed", (1, tokens + 1, WIDTH))], WIDTH)
    for layer in range(LAYERS):
        name = f"blocks.{layer}"
        x = g.add(x, _attention(g, _layer_norm(g, x, f"{name}.norm1"), f"{name}.attn", tokens + 1))
        x = g.add(x, _mlp(g, _layer_norm(g, x, f"{name}.norm2"), f"{name}.mlp"))
    x = _layer_norm(g, x, "norm")
    x = g.op("Gather", [x.name, g.constant("class_token", np.array(0))], WIDTH, axis=1)
    weight, bias = g.parameter("head.weight", (CLASSES, WIDTH)), g.parameter("head.bias", (CLASSES,))
    return g.op("Gemm", [x.name, weight, bias], CLASSES, "head", transB=1)


def _class_tokens(g: Graph, patches: Value) -> str:
    """The class token once for each image of the batch."""
    shape = g.op("Shape", [patches.name], 3).name
    batch = g.op("Gather", [shape, _integers(g, 0)], 1, axis=0).name
    shape = g.op("Concat", [batch, _integers(g, 1, WIDTH)], 3, axis=0).name
    return g.op("Expand", [g.parameter("cls_token", (1, 1, WIDTH)), shape], WIDTH).name


def _attention(g: Graph, x: Value, name: str, tokens: int) -> Value:
    """Multi-head self-attention: [batch,tokens,WIDTH] to the same."""
    qkv = _linear(g, x, f"{name}.qkv", 3 * WIDTH, LINEAR_GAIN)
    qkv = g.op("Reshape", [qkv.name, _integers(g, 0, tokens, 3, HEADS, HEAD_WIDTH)], HEAD_WIDTH)
    qkv = g.op("Transpose", [qkv.name], HEAD_WIDTH, perm=[2, 0, 3, 1, 4])
    q, k, v = (
        g.op("Gather", [qkv.name, g.constant(f"part{part}", np.array(part))], HEAD_WIDTH, axis=0) for part in range(3)
    )
    scale = g.constant("attention.scale", np.array(HEAD_WIDTH**-0.5, np.float32))
    q = g.op("Mul", [q.name, scale], HEAD_WIDTH)
    k = g.op("Transpose", [k.name], tokens, perm=[0, 1, 3, 2])
    weights = g.op("Softmax", [g.op("MatMul", [q.name, k.name], tokens).name], tokens, axis=-1)
    x = g.op("Transpose", [g.op("MatMul", [weights.name, v.name], HEAD_WIDTH).name], HEAD_WIDTH, perm=[0, 2, 1, 3])
    x = g.op("Reshape", [x.name, _integers(g, 0, tokens, WIDTH)], WIDTH)
    return _linear(g, x, f"{name}.proj", WIDTH, RESIDUAL_GAIN)


def _mlp(g: Graph, x: Value, name: str) -> Value:
    hidden = _gelu(g, _linear(g, x, f"{name}.fc1", 4 * WIDTH, LINEAR_GAIN))
    return _linear(g, hidden, f"{name}.fc2", WIDTH, RESIDUAL_GAIN)


def _gelu(g: Graph, x: Value) -> Value:
    """x * (1 + erf(x / sqrt(2))) / 2 (Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016)."""
    root, one, half = (
        g.constant(f"gelu.{name}", np.array(value, np.float32))
        for name, value in (("root", 2**0.5), ("one", 1), ("half", 0.5))
    )
    y = g.op("Erf", [g.op("Div", [x.name, root], x.channels).name], x.channels)
    y = g.op("Mul", [x.name, g.op("Add", [y.name, one], x.channels).name], x.channels)
    return g.op("Mul", [y.name, half], x.channels)


def _layer_norm(g: Graph, x: Value, name: str) -> Value:
    scale, bias = g.parameter(f"{name}.weight", (x.channels,)), g.parameter(f"{name}.bias", (x.channels,))
    return g.op("LayerNormalization", [x.name, scale, bias], x.channels, name, axis=-1, epsilon=1e-6)


def _linear(g: Graph, x: Value, name: str, channels: int, gain: float) -> Value:
    """A dense layer of each token; its weight is stored [in,out]."""
    weight = g.parameter(f"{name}.weight", (channels, x.channels), gain, transposed=True)
    y = g.op("MatMul", [x.name, weight], channels)
    return g.op("Add", [g.parameter(f"{name}.bias", (channels,)), y.name], channels)


def _integers(g: Graph, *values: int) -> str:
    return g.constant(f"integers.{'x'.join(map(str, values))}", np.array(values))
