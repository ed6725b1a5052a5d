"""Compiles a model with one set of hooks or another, and runs it."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from evo_tvm import pipeline
from evo_tvm.artifact import Artifact
from evo_tvm.frontend import Imported
from evo_tvm.frontend.read_model import ModelSource
from evo_tvm.gates.costs import Costs, costs_of
from evo_tvm.gates.explore import Explorer
from evo_tvm.gates.hook import Hook
from evo_tvm.gates.network import Array
from evo_tvm.gates.observe import Observer
from evo_tvm.gates.report import GateFinding
from evo_tvm.gates.sampler import MEGABYTE, Reservoir
from evo_tvm.gates.samples import Samples
from evo_tvm.gates.sites import Site, seen_by
from evo_tvm.gates.teach import idle
from evo_tvm.gates.thresholds import Choice
from evo_tvm.passes._gates import gate_names
from evo_tvm.quantize.calibration_data import ModelInput
from evo_tvm.runtime.gates import CurvePoint
from evo_tvm.runtime.module import Module
from evo_tvm.target import Target, resolve

Progress = Callable[[str, int, int], None]

#: Looks for each gate, as many as that at least; but no sample is looked at more often than the second says.
_LOOKS, _MOST_LOOKS = 600, 8
#: Held-back samples that are timed with and without gates, in turn.
_TIMED = 400
#: Kernels are timed in so many turns, in each of which all states of the gates have so many runs: where the machine's
#: clock changes meanwhile it changes for all of them, and their quickest runs compare.
_TURNS, _RUNS = 12, 4


@dataclass(frozen=True)
class Workbench:
    """A model without gates, and what to compile it for."""

    imported: Imported
    target: Target
    num_threads: int
    say: Progress
    inputs: tuple[ModelInput, ...]

    @staticmethod
    def open(
        model: ModelSource,
        shapes: Mapping[str, tuple[int, ...]],
        target: str | Target = "host",
        num_threads: int = 1,
        progress: Progress = lambda text, done, total: None,
    ) -> Workbench:
        """Imports the model; shapes: of its inputs, by name."""
        resolved = target if isinstance(target, Target) else resolve(target)
        imported = pipeline.clean(model, shapes, progress)
        inputs = tuple(ModelInput(spec.name, spec.shape, spec.dtype) for spec in imported.inputs)
        return Workbench(imported, resolved, num_threads, progress, inputs)

    def compile(self, hooks: Sequence[Hook], features: Sequence[str] = ()) -> Artifact:
        """With these gates, and with these features as further outputs."""
        gated = pipeline.attach(self.imported, hooks, self.target, features)
        return pipeline.assemble(gated, self.target, self.num_threads, progress=self.say).artifact

    @property
    def output(self) -> str:
        """The name of the model's output."""
        return self.imported.outputs[0].name

    def attach(
        self, hooks: Sequence[Hook], found: Sequence[GateFinding], curve: Sequence[Choice]
    ) -> tuple[Artifact, tuple[Hook, ...]]:
        """The model with the gates that are attached, and with the curve; and their hooks in the artifact's order."""
        kept = [i for i, one in enumerate(found) if one.attached]
        final = [replace(hooks[i], threshold=found[i].threshold) for i in kept]
        rounds = [hook for hook, one in zip(hooks, found, strict=True) if not one.attached and one.rate < 1]
        final += in_float(rounds)
        artifact, names = self.compile(final), gate_names(final)
        order = [kept[names.index(gate.name)] for gate in artifact.manifest.gates]
        points = [CurvePoint(_thresholds(hooks, p, order), p.latency, p.accuracy) for p in curve] if kept else []
        artifact = replace(artifact, manifest=replace(artifact.manifest, curve=tuple(points)))
        return artifact, tuple(replace(hooks[i], threshold=found[i].threshold) for i in order)

    def explorer(self, sites: Sequence[Site], seed: int = 0) -> Explorer:
        """Looks at inputs, for hooks at these sites."""
        others = [site for site in sites if site.kind != "exit"]
        hooks = [idle(site) for site in others]
        seen, whole = ([name for name, _ in seen_by(sites, exits)] for exits in (False, True))
        module = self.compile(hooks, [*dict.fromkeys([*seen, *whole])]).module(self.num_threads)
        return Explorer(module, self.output, dict(zip(gate_names(hooks), others, strict=True)), whole, seed)

    def look(self, sites: Sequence[Site], samples: Samples, memory_mb: float = 256, seed: int = 0) -> Reservoir:
        """What sites see of the samples, and what decisions change, in at most so much memory.

        A look tells of one decision: where there are many gates and few samples, each is looked at several times.
        """
        rows: Reservoir | None = None
        explorer, count = self.explorer(sites, seed), len(samples)
        gates = sum(site.kind != "exit" for site in sites)
        again = min(max(math.ceil(_LOOKS * gates / count), 1), _MOST_LOOKS)
        for i, (feed, label) in enumerate(itertools.chain.from_iterable(itertools.repeat(samples, again))):
            row = explorer(feed, label)
            if rows is None:
                rows = Reservoir(row, min(memory_mb * MEGABYTE, again * count * _row_bytes(row)), seed)
            rows.add(row)
            if i % 64 == 0:
                self.say("look at samples", i, again * count)
        assert rows is not None  # open_samples refuses data without a sample
        return rows

    def measure(self, hooks: Sequence[Hook]) -> Costs:
        """The times of kernels, with all gates there and none of them doing anything, and with one or another off.

        What gates that skip save is known from the former.
        """
        self.say("measure", 0, 1)
        artifact, names = self.compile(hooks), gate_names(hooks)
        with artifact.module(self.num_threads) as module:
            off = [name for hook, name in zip(hooks, names, strict=True) if hook.kind not in ("skip", "exit")]
            times: dict[str | None, Array] = {}
            for _ in range(_TURNS):
                for state in (None, *off):
                    module.force("full")
                    if state is not None:
                        module.force({state: False})
                    now = np.array([kernel.min_ms for kernel in module.profile(repeat=_RUNS, warmup=1).kernels])
                    times[state] = np.minimum(times.get(state, now), now)
            decisions = {gate.name: gate.decisions for gate in module.gates}
        full, parts = times[None].tolist(), {name: times[name].tolist() for name in off}
        return costs_of(artifact.manifest.kernels, full, hooks, names, parts, decisions)

    @contextmanager
    def observer(self, hooks: Sequence[Hook], samples: Samples) -> Iterator[Observer]:
        """What the samples go through with any thresholds of these hooks."""
        others = [hook for hook in hooks if hook.kind != "exit"]
        exits = [hook for hook in hooks if hook.kind == "exit"]
        artifact = self.compile(others, [*dict.fromkeys(hook.feature for hook in exits)])
        with artifact.module(self.num_threads) as module:
            many = {gate.name: gate.decisions for gate in module.gates}
            gates = {name: many[name] for name in gate_names(others)}
            yield Observer(module, self.output, gates, exits, samples, self.say)

    def verify(self, artifact: Artifact, hooks: Sequence[Hook], samples: Samples) -> tuple[float, float]:
        """Accuracy of the compiled model over all samples, and its time as a share of the one without the hooks."""
        plain = self.compile(in_float(hooks))
        feeds: list[dict[str, Array]] = []
        with artifact.module(self.num_threads) as gated, plain.module(self.num_threads) as whole:
            right = 0
            for i, (feed, label) in enumerate(samples):
                wanted = label if samples.labels is not None else int(whole.run(feed)[self.output].argmax())
                right += int(gated.run(feed)[self.output].argmax() == wanted)
                if i % 64 == 0:
                    self.say("check", i, len(samples))
                if len(feeds) < _TIMED:
                    feeds.append(feed)
            times = np.array([(_time(gated, feed), _time(whole, feed)) for feed in feeds])
        return right / len(samples), float(_typical(times[:, 0]) / _typical(times[:, 1]))


def in_float(hooks: Sequence[Hook]) -> list[Hook]:
    """Those of precision, as hooks that always choose the version that does not round: gates of this kind save what
    they save compared with that."""
    return [replace(hook, threshold=-math.inf) for hook in hooks if hook.kind == "precision"]


def _time(module: Module, feed: Mapping[str, Array]) -> float:
    start_ns = time.perf_counter_ns()
    module.run(feed)
    return time.perf_counter_ns() - start_ns


def _typical(times: Array) -> float:
    """The mean without the slowest twentieth, which others on this machine made slow."""
    return float(np.sort(times)[: max(len(times) * 19 // 20, 1)].mean())


def _row_bytes(row: Mapping[str, Array]) -> int:
    return sum(max(np.asarray(value).nbytes, 1) for value in row.values())


def _thresholds(hooks: Sequence[Hook], choice: Choice, kept: Sequence[int]) -> tuple[float, ...]:
    """Of the hooks that are kept, in order."""
    skips, exits = iter(choice.skip_thresholds), iter(choice.exit_thresholds)
    every = [next(exits) if hook.kind == "exit" else next(skips) for hook in hooks]
    return tuple(every[i] for i in kept)
