"""What a run costs: times of kernels and the gates that they run under give the time of every path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from evo_tvm.gates.hook import Hook
from evo_tvm.gates.network import Array

#: Kernels whose time changes by less than this share when a gate is off have nothing to do with it.
_CHANGED = 0.15


class Kernel(Protocol):
    """What a manifest says of a kernel."""

    @property
    def layers(self) -> tuple[str, ...]: ...
    @property
    def guards(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Costs:
    """Times in parts of the time of the whole model without gates. G gates that leave out work, E exits, in order.

    whole: float [E + 1], the layers that run until each exit, and until the end, with all gates on. blocks: float
    [E + 1, G], what of that each gate saves that is off. skip_hooks, exit_hooks: float [G], [E], the hooks' own times.
    skips_before: bool [E + 1, G], the hooks that have run by each exit. decisions: int [G], how many each gate makes.
    full_ms: the time of the whole model without gates.
    """

    whole: Array
    blocks: Array
    skip_hooks: Array
    exit_hooks: Array
    skips_before: Array
    decisions: Array
    full_ms: float

    def path(self, mask: Array) -> Array:
        """Times [N, E + 1] of samples that leave at each exit, hooks left out; mask: float [N, G], the shares of each
        gate's decisions that are on."""
        return np.asarray(self.whole - (1 - mask) @ self.blocks.T)


def costs_of(
    kernels: Sequence[Kernel],
    times_ms: Sequence[float],
    hooks: Sequence[Hook],
    names: Sequence[str],
    off_ms: Mapping[str, Sequence[float]] | None = None,
    decisions: Mapping[str, int] | None = None,
) -> Costs:
    """The costs of a model with these gates, from its kernels and their times when all gates are at "full".

    hooks: in the order in which they decide; names: of their gates. off_ms: the times of kernels with this gate off, of
    gates of channels, tiles and precision; what a gate that skips saves is known from what its kernels are guarded by.
    decisions: of each gate, one where it is not there.
    """
    off_ms, many = off_ms or {}, decisions or {}
    skips = [name for hook, name in zip(hooks, names, strict=True) if hook.kind != "exit"]
    exits = [name for hook, name in zip(hooks, names, strict=True) if hook.kind == "exit"]
    owners = _owners(hooks, names)
    body, own = np.zeros((len(exits) + 1, len(skips) + 1)), dict.fromkeys(names, 0.0)
    before = np.zeros((len(exits) + 1, len(skips)), bool)
    for kernel, time_ms in zip(kernels, times_ms, strict=True):
        reached = [f"-{gate}" not in kernel.guards for gate in exits]
        under = [place for place, gate in enumerate(skips) if f"+{gate}" in kernel.guards]
        owned = [gate for layer in kernel.layers for gate in owners.get(layer.split(".")[0], ())]
        for gate in owned:
            own[gate] += time_ms
            if gate in skips:
                before[:, skips.index(gate)] = [*reached, True]
        if not owned:
            body[[*reached, True], under[0] if under else len(skips)] += time_ms
    full_ms, whole = float(body[-1].sum()), body.sum(axis=1)
    for gate, times in off_ms.items():
        body[:, skips.index(gate)] = 0
        for kernel, on, off in zip(kernels, times_ms, times, strict=True):
            if abs(on - off) > _CHANGED * max(on, off):
                reached = [f"-{leaves}" not in kernel.guards for leaves in exits]
                body[[*reached, True], skips.index(gate)] += on - off
    return Costs(
        whole / full_ms,
        body[:, :-1] / full_ms,
        np.array([own[name] for name in skips]) / full_ms,
        np.array([own[name] for name in exits]) / full_ms,
        before,
        np.array([many.get(name, 1) for name in skips]),
        full_ms,
    )


def _owners(hooks: Sequence[Hook], names: Sequence[str]) -> Mapping[str, list[str]]:
    """The gates whose networks have layers of these names; a pool that several share counts for each of them."""
    found: dict[str, list[str]] = {}
    for hook, name in zip(hooks, names, strict=True):
        for layer in (f"{name}_hook", f"{name}_seen", f"{hook.feature}_mean", f"{hook.feature}_seen"):
            found.setdefault(layer, []).append(name)
    return found
