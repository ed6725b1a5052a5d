"""The hooks' networks: one or two small dense layers on pooled features, in numpy; and what they learn from.

A network of G groups of P classes: an exit has one group, of the model's classes; K decisions are K groups of two
classes, off and on, and the difference of the two logits is the logit of the decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from evo_tvm.errors import InputError

Array: TypeAlias = npt.NDArray[Any]
Weights: TypeAlias = tuple[Array, ...]

#: Fewer examples than this teach a network nothing that would hold for other inputs.
FEWEST_EXAMPLES = 256
#: Channels that hardly change are not scaled up to this standard deviation.
_LEAST_DEVIATION = 1e-4


@dataclass(frozen=True)
class Examples:
    """What a hook learns from.

    x: float32 [N, C], pooled features. targets: float32 [N, G, P], how probable each class of each group should be; a
    group of zeros teaches nothing.
    """

    x: Array
    targets: Array

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or self.targets.ndim != 3 or len(self.x) != len(self.targets):
            raise InputError(
                "features and targets do not fit each other",
                expected="[N, C] and [N, G, P]",
                got=f"{list(self.x.shape)} and {list(self.targets.shape)}",
            )

    def __len__(self) -> int:
        return len(self.x)


def check_examples(count: int, where: object = None) -> None:
    """Raises InputError: these are too few to learn from."""
    if count < FEWEST_EXAMPLES:
        raise InputError(
            "too few samples to train a hook",
            where=where,
            expected=f"at least {FEWEST_EXAMPLES}",
            got=count,
            hint="Give more data, or let the sampler look at more inputs.",
        )


def hidden_units(channels: int, outputs: int, parameters: int, most: int = 64) -> int:
    """The units of the hidden layer with which a network has at most `parameters`; 0: one layer alone."""
    units = (parameters - outputs) // (channels + 1 + outputs)
    return min(units - units % 4, most) if units >= 8 else 0


def parameter_count(weights: Weights) -> int:
    """How many numbers the network has."""
    return sum(int(w.size) for w in weights)


def start(channels: int, hidden: int, outputs: int, seed: int = 0) -> Weights:
    """Weights to start from (He et al., 2015): float32, a hidden layer unless `hidden` is 0."""
    rng = np.random.default_rng(seed)
    sizes = [channels, *([hidden] if hidden else []), outputs]
    weights: list[Array] = []
    for before, behind in pairwise(sizes):
        scale = np.sqrt((2 if behind != outputs else 1) / before)
        weights += [(rng.standard_normal((before, behind)) * scale).astype(np.float32), np.zeros(behind, np.float32)]
    return tuple(weights)


def forward(weights: Weights, x: Array) -> Array:
    """The logits [N, K] of pooled features [N, C]."""
    for place in range(0, len(weights), 2):
        x = np.maximum(x, 0) if place else x
        x = x @ weights[place] + weights[place + 1]
    return x


def softmax(logits: Array) -> Array:
    """Along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def as_logits(outputs: Array) -> Array:
    """What a model gives [.., classes] as logits: of a model that ends in a softmax, its logarithm."""
    likely = bool((outputs >= 0).all()) and bool(np.allclose(outputs.sum(axis=-1), 1, atol=1e-3))
    return np.log(np.maximum(outputs, 1e-12)) if likely else outputs


@dataclass(frozen=True)
class Scaling:
    """Means and standard deviations of the features [C]: networks learn from features without them."""

    mean: Array
    deviation: Array

    @staticmethod
    def of(x: Array) -> Scaling:
        """Those of the features [N, C]."""
        return Scaling(x.mean(axis=0, dtype=np.float64), np.maximum(x.std(axis=0, dtype=np.float64), _LEAST_DEVIATION))

    def apply(self, x: Array) -> Array:
        """The features as networks learn from them, float32."""
        return ((x - self.mean) / self.deviation).astype(np.float32)

    def fold(self, weights: Weights) -> Weights:
        """The weights of the network that reads features as they are."""
        first = weights[0] / self.deviation[:, None]
        bias = weights[1] - self.mean @ first
        return (first.astype(np.float32), bias.astype(np.float32), *weights[2:])

    def unfold(self, weights: Weights) -> Weights:
        """The other way about: the network that reads scaled features, from one that reads them as they are."""
        bias = weights[1] + self.mean @ weights[0]
        return ((weights[0] * self.deviation[:, None]).astype(np.float32), bias.astype(np.float32), *weights[2:])


def training_start(examples: Examples, hidden: int, seed: int, begin: Weights | None) -> tuple[Scaling, Weights]:
    """How a training scales features, and the weights it starts from; begin: to go on from, of features as they are."""
    scaling = Scaling.of(examples.x)
    _, groups, classes = examples.targets.shape
    if begin is not None:
        return scaling, scaling.unfold(begin)
    return scaling, start(examples.x.shape[1], hidden, groups * classes, seed)


def decision_weights(weights: Weights) -> Weights:
    """Weights of a network of two classes a group, [.., 2 K], as one that gives the K logits of "on"."""
    *rest, last, bias = weights
    return (*rest, np.ascontiguousarray(last[:, 1::2] - last[:, ::2]), np.ascontiguousarray(bias[1::2] - bias[::2]))


def class_weights(weights: Weights) -> Weights:
    """The other way about: two classes a group, whose logits are half of the decision's logit, below and above zero."""
    *rest, last, bias = weights
    pairs = [np.stack([-part / 2, part / 2], axis=-1).reshape(*part.shape[:-1], -1) for part in (last, bias)]
    return (*rest, *pairs)
