"""Looks at inputs with a model whose gates can be forced: what sites see, and what leaving blocks out does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from evo_tvm.errors import InputError
from evo_tvm.gates.network import Array, Examples, softmax

#: Up to this share of the blocks is left out in one look; the share is drawn anew for each.
_MOST_OFF = 0.8
#: Every so many looks leave out one block alone, which tells how much harm that does.
_ALONE = 4
#: A block that does much harm is left out in at least this part of the looks that leave out harmless ones.
_LEAST_OFTEN = 0.1
#: How much of an exit's target is the label, where there is one; the rest is what the model says itself.
_LABEL_SHARE = 0.5


class Gated(Protocol):
    """A loaded model whose gates can be forced, and which gives the features of sites as further outputs."""

    def force(self, decisions: Mapping[str, bool | None] | str | None) -> None:
        """Has gates decide so, whatever they see."""
        ...

    def run(self, inputs: Mapping[str, object]) -> dict[str, Array]:
        """Outputs by name."""
        ...


class Explorer:
    """Runs each input twice: with all blocks, and with one or some that chance picks left out.

    The more harm it does to leave a block out, the rarer it is among several: gates will not do that often either.
    A row has `features` (float32, those that gates which skip read, pooled, one behind the other, as the second run has
    them), `whole` (those that exits read, as the first run has them), `mask` (bool, the gates that were on), `full` and
    `found` (float32, logits of the first and the second run) and `label`.
    """

    def __init__(
        self,
        module: Gated,
        output: str,
        gates: Sequence[str],
        features: Sequence[str],
        whole: Sequence[str],
        seed: int = 0,
    ) -> None:
        self._module, self._output, self._gates = module, output, tuple(gates)
        self._features, self._whole = tuple(features), tuple(whole)
        self._rng, self._looks = np.random.default_rng(seed), 0
        self._alone, self._harmed = np.ones(len(gates)), np.full(len(gates), 0.5)

    def _draw(self) -> Array:
        """bool [gates]: what is on in the next look."""
        self._looks += 1
        if self._looks % _ALONE == 0:
            return np.asarray(np.arange(len(self._gates)) != self._looks // _ALONE % len(self._gates))
        harm = self._harmed / self._alone
        often = np.clip(np.quantile(harm, 0.25) / harm, _LEAST_OFTEN, 1)
        return np.asarray(self._rng.random(len(self._gates)) >= often * self._rng.random() * _MOST_OFF)

    def __call__(self, inputs: Mapping[str, Array], label: int = -1) -> dict[str, Array]:
        """One row."""
        if self._gates:
            self._module.force("full")
        full = self._module.run(inputs)
        mask = np.ones(len(self._gates), bool)
        found = full
        if self._gates:
            mask = self._draw()
            self._module.force(dict(zip(self._gates, map(bool, mask), strict=True)))
            found = self._module.run(inputs) if not mask.all() else full
            if np.count_nonzero(~mask) == 1:
                self._alone += ~mask
                self._harmed += ~mask & (found[self._output].argmax() != full[self._output].argmax())
        return {
            "features": _pooled(found, self._features),
            "whole": _pooled(full, self._whole),
            "mask": mask,
            "full": full[self._output].reshape(-1).astype(np.float32),
            "found": found[self._output].reshape(-1).astype(np.float32),
            "label": np.asarray(label, np.int64),
        }


def _pooled(values: Mapping[str, Array], names: Sequence[str]) -> Array:
    """The pooled features, one behind the other; float32 [0] where there are none."""
    return np.concatenate([np.zeros(0, np.float32), *(pooled(values[name]) for name in names)])


def pooled(feature: Array) -> Array:
    """The average over rows and columns of a feature map (1, C, H, W), or what it is (1, C): float32 [C]."""
    return np.asarray(feature.reshape(*feature.shape[:2], -1).mean(axis=2)[0], np.float32)


def exit_examples(x: Array, full: Array, labels: Array) -> Examples:
    """For an exit: what the whole model says (self-distillation), and the labels where there are any.

    x: [N, C]; full: logits [N, classes]; labels: int64 [N], -1 where unknown. Raises InputError: a label beyond the
    classes.
    """
    targets = softmax(full.astype(np.float64))
    known = labels >= 0
    if known.any():
        if int(labels.max()) >= full.shape[1]:
            raise InputError(
                "a label is beyond the classes", where="labels", expected=f"0 to {full.shape[1] - 1}", got=labels.max()
            )
        right = np.eye(full.shape[1])[np.maximum(labels, 0)]
        targets[known] = (1 - _LABEL_SHARE) * targets[known] + _LABEL_SHARE * right[known]
    return Examples(x, targets[:, None].astype(np.float32))


def skip_examples(x: Array, mask: Array, full: Array, found: Array, labels: Array) -> Examples:
    """For a gate that skips: whether its block was needed, in the looks that left it out.

    It was where the answer became another than that of the whole model; where the label is known, only if that one was
    right. mask: bool [N], whether the block was on; others as `exit_examples`.
    """
    wanted = np.where(labels >= 0, labels, full.argmax(axis=1))
    needed = (full.argmax(axis=1) == wanted) & (found.argmax(axis=1) != wanted)
    targets = np.stack([~needed, needed], axis=1).astype(np.float32)
    targets[mask] = 0
    return Examples(x, targets[:, None])
