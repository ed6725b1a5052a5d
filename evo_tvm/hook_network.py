"""`evo_tvm.HookNetwork`: the hooks of one model from build to release, while the model is in use."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from evo_tvm.errors import InputError, UsageError
from evo_tvm.frontend.read_model import ModelSource
from evo_tvm.gate_model import MOST_EXITS, TRAINERS, Gated, attach, parameters_for_hooks
from evo_tvm.gates.background import Background
from evo_tvm.gates.hook import Hook, Kind
from evo_tvm.gates.hooks_file import load_hooks, save_hooks
from evo_tvm.gates.sampler import Sampler
from evo_tvm.gates.samples import check_classes, open_samples
from evo_tvm.gates.sites import require_sites
from evo_tvm.gates.teach import hidden_of, idle
from evo_tvm.gates.workbench import Workbench
from evo_tvm.target import Target

if TYPE_CHECKING:
    from evo_tvm.quantize.accuracy_goal import LabelSource
    from evo_tvm.quantize.calibration_data import CalibrationSource


class HookNetwork:
    """Hooks at every site of a model: built once, trained beside inference, compiled into gates, saved or dropped.

    Building finds the sites and compiles a copy of the model that looks at inputs. `sampler` gives what an inference
    thread offers its inputs to, and `train` a thread that learns from what was looked at. `infer` compiles the model
    with the gates that pay. `release` lets go of everything, and saves the hooks where it is told to.
    """

    def __init__(
        self,
        model: ModelSource,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
        kinds: Sequence[Kind] = ("skip", "exit"),
        target: str | Target = "host",
        num_threads: int = 1,
        hooks: str | os.PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        """hooks: a `.hooks` file to go on from. Others as `evo_tvm.gate` has them.

        Raises ModelError: the model has no site for such a gate. InputError: the hooks are those of another model.
        """
        shapes = {name: tuple(shape) for name, shape in (input_shapes or {}).items()}
        self._bench = Workbench.open(model, shapes, target, num_threads)
        self.sites = require_sites(self._bench.imported.module, tuple(kinds), self._bench.target)
        self.hooks: tuple[Hook, ...] = tuple(idle(site) for site in self.sites)
        self._seed, self._released = seed, False
        self._sampler: Sampler | None = None
        self._background: Background | None = None
        if hooks is not None:
            self._take(load_hooks(hooks).hooks, hooks)

    def sampler(self, memory_mb: float = 64, **when: Any) -> Sampler:
        """What looks at the inputs that it is offered, in at most so much memory. when: as `Sampler` has it."""
        self._check()
        like = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in self._bench.imported.inputs}
        self._sampler = Sampler(self._bench.explorer(self.sites, self._seed), like, memory_mb, **when)
        return self._sampler

    def train(self, trainer: str = "backprop", path: str | os.PathLike[str] | None = None) -> Background:
        """A thread that trains on what the sampler keeps, for a `with` block; see `Background`.

        path: the `.hooks` file to save to after each round. Raises UsageError: there is no sampler yet, or no such
        trainer.
        """
        self._check()
        if trainer not in TRAINERS:
            raise UsageError("unknown trainer", where="trainer", expected=" or ".join(TRAINERS), got=trainer)
        if self._sampler is None:
            raise UsageError("there is nothing to learn from yet", hint="Make a sampler first, and offer it inputs.")
        hidden = hidden_of(self.sites, parameters_for_hooks(self._bench), MOST_EXITS)
        trained = self._background.hooks if self._background is not None else None
        self._background = Background(
            self._sampler, self.sites, hidden, TRAINERS[trainer], path, self._seed, trained or self.hooks
        )
        return self._background

    def infer(self, holdout: CalibrationSource, labels: LabelSource | None = None, max_drop: float = 0.003) -> Gated:
        """The compiled model with the gates that pay, thresholds chosen on these samples, as `evo_tvm.gate` does it."""
        self._check()
        samples = open_samples(holdout, labels, self._bench.inputs)
        check_classes(samples, int(self._bench.imported.outputs[0].shape[-1]), "labels")
        reservoir = self._sampler.reservoir if self._sampler is not None else None
        return attach(self._bench, self._latest(), samples, max_drop, len(reservoir) if reservoir is not None else 0)

    def release(self, path: str | os.PathLike[str] | None = None) -> None:
        """Lets go of sampler and hooks; path: saves them for the next time. A second time does nothing."""
        if self._released:
            return
        if path is not None:
            save_hooks(path, self._latest())
        self._released, self._sampler, self._background, self.hooks = True, None, None, ()

    def _latest(self) -> tuple[Hook, ...]:
        if self._background is not None and self._background.hooks is not None:
            self.hooks = self._background.hooks
        return self.hooks

    def _take(self, saved: Sequence[Hook], where: str | os.PathLike[str]) -> None:
        """Hooks from a file, in place of those at the same sites."""
        places = {(site.site, site.kind): number for number, site in enumerate(self.sites)}
        hooks = list(self.hooks)
        for hook in saved:
            number = places.get((hook.site, hook.kind))
            site = self.sites[number] if number is not None else None
            if number is None or site is None or hook.weights[0].shape[0] != site.channels:
                raise InputError(
                    "these hooks belong to another model, or to other kinds of gates",
                    where=where,
                    expected=f"sites {', '.join(f'{s.site} ({s.kind})' for s in self.sites)}",
                    got=f"{hook.site} ({hook.kind}), reading {hook.weights[0].shape[0]} channels",
                )
            hooks[number] = replace(hook, threshold=hooks[number].threshold)
        self.hooks = tuple(hooks)

    def _check(self) -> None:
        if self._released:
            raise UsageError("these hooks have been released", hint="Build a new HookNetwork, from the saved ones.")
