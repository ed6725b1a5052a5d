"""Rows of the sampler become trained hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from evo_tvm.gates.explore import decision_examples, doubt_of, exit_examples, harm_of
from evo_tvm.gates.hook import Hook
from evo_tvm.gates.network import (
    FEWEST_EXAMPLES,
    Array,
    Examples,
    Weights,
    check_examples,
    class_weights,
    decision_weights,
    hidden_units,
)
from evo_tvm.gates.sampler import Reservoir
from evo_tvm.gates.sites import Site, seen_by
from evo_tvm.gates.thresholds import NEVER_LEAVE, NEVER_SKIP

#: Of the parameters that hooks may have, this part is for other gates than exits where there may be exits, too.
_OTHERS_SHARE = 0.3
#: At most so many of these are used: more are seldom worth their while, and all hooks together stay small.
MOST_OTHERS = 5
#: The logit of a hook that was taught nothing: its gate is always on.
_IDLE = 1e4

Progress = Callable[[str, int, int], None]


class Trainer(Protocol):
    """`train_backprop` or `train_forward_forward`."""

    def __call__(
        self,
        examples: Examples,
        hidden: int = ...,
        epochs: int = ...,
        seed: int = ...,
        begin: Weights | None = ...,
        stopped: Callable[[], bool] = ...,
    ) -> Weights:
        """The weights of the network that learnt the examples."""
        ...


def hidden_of(sites: Sequence[Site], parameters: int, most_exits: int) -> dict[Site, int]:
    """Units of each hook's hidden layer, with which those that are kept have at most so many parameters."""
    others = sum(site.kind != "exit" for site in sites)
    exits = len(sites) - others
    share = {True: 1 - _OTHERS_SHARE if others else 1.0, False: _OTHERS_SHARE if exits else 1.0}
    count = {True: min(most_exits, exits), False: min(MOST_OTHERS, others)}
    each = {leaves: int(parameters * share[leaves] / max(count[leaves], 1)) for leaves in share}
    return {site: hidden_units(site.channels, site.outputs, each[site.kind == "exit"]) for site in sites}


def examples_of(rows: Reservoir, sites: Sequence[Site], site: Site) -> Examples:
    """What the hook at `site` learns from; `sites`: all, in the order in which rows have their features and slots."""
    leaves, at = site.kind == "exit", 0
    columns = ("whole" if leaves else "features", "slot", "full", "base", "found", "label")
    x, slot, full, base, found, labels = rows.take(columns)
    for seen, numbers in seen_by(sites, leaves).items():
        if seen == (site.feature, site.cells):
            break
        at += numbers
    x = x[:, at : at + numbers].reshape(len(x), -1, site.channels)
    if leaves:
        return exit_examples(x[:, 0], full, labels)
    which = looked_at(slot, sites, site)
    mine = which >= 0
    harm = harm_of(full[mine], base[mine], found[mine], labels[mine])
    if x.shape[1] > 1:  # each tile is a cell, with one output
        return decision_examples(x[mine, which[mine]], np.zeros_like(which[mine]), 1, harm)
    return decision_examples(x[:, 0], which, site.outputs, harm, doubt_of(full))


def looked_at(slot: Array, sites: Sequence[Site], site: Site) -> Array:
    """Which of the site's decisions the rows with these slots looked at; -1: none of them."""
    others = [s for s in sites if s.kind != "exit"]
    which = slot - sum(s.decisions for s in others[: others.index(site)])
    return np.where((which >= 0) & (which < site.decisions), which, -1)


def idle(site: Site) -> Hook:
    """A hook whose gate does nothing, whatever it sees."""
    weights = np.zeros((site.channels, site.outputs), np.float32), np.full(site.outputs, _IDLE, np.float32)
    threshold = NEVER_LEAVE if site.kind == "exit" else NEVER_SKIP
    return Hook(site.site, site.kind, site.feature, weights, threshold, site.tile)


def is_idle(hook: Hook) -> bool:
    """Whether it is such a hook."""
    return bool((hook.weights[-1] == _IDLE).all())


def teach(
    rows: Reservoir,
    sites: Sequence[Site],
    hidden: Mapping[Site, int],
    trainer: Trainer,
    epochs: int,
    seed: int,
    progress: Progress,
    begin: Mapping[Site, Hook] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Hook, ...]:
    """A hook for each site, whose gate does nothing yet. begin: hooks to go on from, which keep their thresholds.

    A site that was looked at too rarely, since its gate does harm, keeps its hook, or gets an idle one. Raises
    InputError: too few rows teach any hook of a kind.
    """
    (slot,) = rows.take(("slot",))
    looks = [len(slot) if s.kind == "exit" else int((looked_at(slot, sites, s) >= 0).sum()) for s in sites]
    for kind in dict.fromkeys(site.kind for site in sites):
        check_examples(max(n for n, s in zip(looks, sites, strict=True) if s.kind == kind), f"hooks of the kind {kind}")
    hooks = []
    for number, site in enumerate(sites):
        progress("train hooks", number, len(sites))
        old = (begin or {}).get(site, idle(site))
        if looks[number] < FEWEST_EXAMPLES:
            hooks.append(old)
            continue
        some = examples_of(rows, sites, site)
        known = old.weights if site.kind == "exit" else class_weights(old.weights)
        weights = trainer(some, hidden[site], epochs, seed, None if is_idle(old) else known, stopped)
        hooks.append(replace(old, weights=weights if site.kind == "exit" else decision_weights(weights)))
    return tuple(hooks)
