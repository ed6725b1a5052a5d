"""Rows of the sampler become trained hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from evo_tvm.gates.explore import exit_examples, skip_examples
from evo_tvm.gates.hook import Hook
from evo_tvm.gates.network import Examples, Weights, class_weights, decision_weights, hidden_units
from evo_tvm.gates.sampler import Reservoir
from evo_tvm.gates.sites import Site
from evo_tvm.gates.thresholds import NEVER_LEAVE, NEVER_SKIP

#: Of the parameters that hooks may have, this part is for gates that skip where there may be exits, too.
_SKIP_SHARE = 0.3
#: More gates that skip are seldom worth their while.
MOST_SKIPS = 8

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


def features_of(sites: Sequence[Site], exits: bool) -> dict[str, int]:
    """The features that hooks of exits, or all others, read at these sites, with their channels, in order."""
    return {site.feature: site.channels for site in sites if (site.kind == "exit") == exits}


def hidden_of(sites: Sequence[Site], parameters: int, most_exits: int) -> dict[Site, int]:
    """Units of each hook's hidden layer, with which those that are kept have at most so many parameters."""
    skips = sum(site.kind != "exit" for site in sites)
    exits = len(sites) - skips
    share = {"exit": 1 - _SKIP_SHARE if skips else 1.0, "skip": _SKIP_SHARE if exits else 1.0}
    count = {"exit": min(most_exits, exits), "skip": min(MOST_SKIPS, skips)}
    return {
        site: hidden_units(site.channels, site.outputs, int(parameters * share[site.kind] / count[site.kind]))
        for site in sites
    }


def examples_of(rows: Reservoir, sites: Sequence[Site], site: Site) -> Examples:
    """What the hook at `site` learns from; `sites`: all, in the order in which rows have their features and masks."""
    leaves = site.kind == "exit"
    x, mask, full, found, labels = rows.take(("whole" if leaves else "features", "mask", "full", "found", "label"))
    at = 0
    for feature, channels in features_of(sites, leaves).items():
        if feature == site.feature:
            break
        at += channels
    x = x[:, at : at + site.channels]
    if leaves:
        return exit_examples(x, full, labels)
    number = [s for s in sites if s.kind != "exit"].index(site)
    return skip_examples(x, mask[:, number], full, found, labels)


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

    Raises InputError: too few rows teach one of them.
    """
    hooks = []
    for number, site in enumerate(sites):
        progress("train hooks", number, len(sites))
        examples = examples_of(rows, sites, site)
        examples.check_enough(f"the {site.kind} hook at {site.site}")
        old = (begin or {}).get(site)
        known = None if old is None else old.weights if site.kind == "exit" else class_weights(old.weights)
        weights = trainer(examples, hidden[site], epochs, seed, known, stopped)
        if site.kind != "exit":
            weights = decision_weights(weights)
        threshold = NEVER_LEAVE if site.kind == "exit" else NEVER_SKIP
        hooks.append(Hook(site.site, site.kind, site.feature, weights, old.threshold if old else threshold))
    return tuple(hooks)
