"""Looks at inputs with a model whose gates can be forced: what sites see, and what one decision changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from evo_tvm.errors import InputError
from evo_tvm.gates.network import Array, Examples, as_logits, softmax
from evo_tvm.gates.sites import Site, seen_by

#: Up to this share of the other decisions is off in a look; the share is drawn anew for each.
_MOST_OFF = 0.6
#: A gate that does much harm is looked at, and is off, at least this often, compared with harmless ones.
_LEAST_OFTEN = 0.1
#: What a gate that was not looked at yet is taken for: the harm of this one look.
_FIRST_HARM = 0.02
#: How much of what hooks learn is the label, where there is one; the rest is what the model says itself.
_LABEL_SHARE = 0.5
#: Of the softmax of what a run says, where two are compared.
_SHARPNESS = 2.0


class Gated(Protocol):
    """A loaded model whose gates can be forced, and which gives the features of sites as further outputs."""

    def force(self, decisions: Mapping[str, Array] | str | None) -> None:
        """Has gates decide so, whatever they see."""
        ...

    def run(self, inputs: Mapping[str, object]) -> dict[str, Array]:
        """Outputs by name."""
        ...


class Explorer:
    """Looks at one decision of one gate at a time, others off as chance has it: the answer with it on, and with it off.

    The more harm a gate does, the rarer it is off: it will not be off often either. A row has `features` (float32, what
    the hooks of gates that leave out work read, one behind the other, as they are in the run with the decision off),
    `whole` (what exits read, with all gates on), `slot` (int64, which decision it was, of all gates one behind the
    other; -1: there is none), `full`, `base` and `found` (float32, logits with all gates on, with the decision on, and
    with it off) and `label`.
    """

    def __init__(
        self, module: Gated, output: str, gates: Mapping[str, Site], whole: Sequence[str] = (), seed: int = 0
    ) -> None:
        """gates: sites of gates that leave out work, by the names of their gates. whole: what exits read."""
        self._module, self._output, self._gates, self._whole = module, output, dict(gates), tuple(whole)
        self._seen = tuple(seen_by(gates.values(), exits=False))
        self._first = np.cumsum([0, *(site.decisions for site in gates.values())])
        self._rng = np.random.default_rng(seed)
        self._looks, self._harm = np.ones(len(gates)), np.full(len(gates), _FIRST_HARM)

    def _draw(self) -> tuple[int, int, dict[str, Array]]:
        """A gate, its decision to look at, and which decisions of all gates are on besides."""
        harm = self._harm / self._looks
        often = np.clip(np.quantile(harm, 0.25) / harm, _LEAST_OFTEN, 1)
        gate = int(self._rng.choice(len(often), p=often / often.sum()))
        off = often * self._rng.random() * _MOST_OFF
        on = {
            name: self._rng.random(self._gates[name].decisions) >= o for name, o in zip(self._gates, off, strict=True)
        }
        return gate, int(self._rng.integers(self._first[gate + 1] - self._first[gate])), on

    def __call__(self, inputs: Mapping[str, Array], label: int = -1) -> dict[str, Array]:
        """One row."""
        if self._gates:
            self._module.force("full")
        full = base = found = self._module.run(inputs)
        slot = -1
        if self._gates:
            gate, which, on = self._draw()
            slot = int(self._first[gate]) + which
            decisions = on[list(self._gates)[gate]]
            decisions[which] = True
            if not all(some.all() for some in on.values()):
                self._module.force(on)
                base = self._module.run(inputs)
            decisions[which] = False
            self._module.force(on)
            found = self._module.run(inputs)
        logits = [as_logits(run[self._output].reshape(-1)).astype(np.float32) for run in (full, base, found)]
        if self._gates:
            self._looks[gate] += 1
            self._harm[gate] += harm_of(logits[0][None], logits[1][None], logits[2][None], np.array([label]))[0]
        return {
            "features": _joined(pooled(found[name], cells) for name, cells in self._seen),
            "whole": _joined(pooled(full[name]) for name in self._whole),
            "slot": np.asarray(slot, np.int64),
            **dict(zip(("full", "base", "found"), logits, strict=True)),
            "label": np.asarray(label, np.int64),
        }


def _joined(parts: Iterable[Array]) -> Array:
    """One behind the other; float32 [0] where there are none."""
    return np.concatenate([np.zeros(0, np.float32), *parts])


def pooled(feature: Array, cells: tuple[int, int] = (1, 1)) -> Array:
    """The averages of a feature map (1, C, H, W) over cells of an image, or what it is (1, C): float32 [cells * C]."""
    if feature.ndim == 2:
        return np.asarray(feature[0], np.float32)
    _, channels, height, width = feature.shape
    down, across = cells
    parts = feature.reshape(channels, down, height // down, across, width // across).mean(axis=(2, 4))
    return np.asarray(parts.reshape(channels, -1).T.reshape(-1), np.float32)


def beliefs(full: Array, labels: Array) -> Array:
    """How probable each class is [N, classes], by the model's own logits [N, classes] and labels [N], -1 where unknown.

    Raises InputError: a label beyond the classes.
    """
    found = softmax(full.astype(np.float64))
    known = labels >= 0
    if known.any():
        if int(labels.max()) >= full.shape[1]:
            raise InputError(
                "a label is beyond the classes", where="labels", expected=f"0 to {full.shape[1] - 1}", got=labels.max()
            )
        right = np.eye(full.shape[1])[np.maximum(labels, 0)]
        found[known] = (1 - _LABEL_SHARE) * found[known] + _LABEL_SHARE * right[known]
    return found


def exit_examples(x: Array, full: Array, labels: Array) -> Examples:
    """For an exit: what the whole model says (self-distillation), and the labels where there are any.

    x: [N, C]; full: logits [N, classes]; labels: int64 [N], -1 where unknown. Raises InputError: a label beyond the
    classes.
    """
    return Examples(x, beliefs(full, labels)[:, None].astype(np.float32))


def harm_of(full: Array, base: Array, found: Array, labels: Array) -> Array:
    """How much less probable what `found` says is than what `base` says [N], logits [N, classes].

    An answer that changes between two classes that are as probable does no harm. What they say counts as a softmax,
    not as one class: an answer that has just not changed yet is a warning, where other work is left out besides.
    """
    said, now = (softmax(_SHARPNESS * logits.astype(np.float64)) for logits in (base, found))
    return np.asarray(np.maximum((beliefs(full, labels) * (said - now)).sum(axis=1), 0))


def doubt_of(full: Array) -> Array:
    """How unsure the whole model is [N], of its logits [N, classes]."""
    return np.asarray(1 - softmax(_SHARPNESS * full.astype(np.float64)).max(axis=1))


def decision_examples(x: Array, which: Array, decisions: int, harm: Array, doubt: Array | None = None) -> Examples:
    """For decisions that leave out work: the harm where decision `which` [N] of `decisions` was off.

    x: [N, C]. harm: of those samples alone of which `which` is not below 0. doubt: [N]; where it is given, decisions
    that were not looked at teach, too: that harm grows with doubt, and is as much on average. Few looks do any harm, so
    that they alone teach little.
    """
    looked = which >= 0
    targets = np.zeros((len(x), decisions, 2), np.float32)
    if doubt is not None and len(harm):
        likely = np.minimum(doubt * (harm.mean() / max(doubt.mean(), 1e-9)), 1)
        targets[:, :, 0], targets[:, :, 1] = 1 - likely[:, None], likely[:, None]
    targets[looked, which[looked], 0], targets[looked, which[looked], 1] = 1 - harm, harm
    return Examples(x, targets)
