"""`evo_tvm.gate`: attaches gates to a finished model, trains them, and compiles what pays."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from evo_tvm import pipeline
from evo_tvm.artifact import Artifact
from evo_tvm.errors import UsageError
from evo_tvm.frontend import Imported
from evo_tvm.frontend.read_model import ModelSource, read_model
from evo_tvm.gates.costs import Costs, costs_of
from evo_tvm.gates.explore import Explorer
from evo_tvm.gates.hook import Hook, Kind, as_kinds
from evo_tvm.gates.network import Array, start
from evo_tvm.gates.observe import observe
from evo_tvm.gates.report import GateFinding, GateReport, KindFinding, findings
from evo_tvm.gates.sampler import MEGABYTE, Reservoir
from evo_tvm.gates.samples import Samples, check_classes, open_samples, split
from evo_tvm.gates.sites import Site, parameters_of, require_sites
from evo_tvm.gates.teach import features_of, hidden_of, teach
from evo_tvm.gates.thresholds import NEVER_SKIP, STRICTNESSES, Choice, Outcomes, search, skip_thresholds
from evo_tvm.gates.train_backprop import train_backprop
from evo_tvm.gates.train_forward_forward import train_forward_forward
from evo_tvm.passes._gates import gate_names
from evo_tvm.quantize.calibration_data import ModelInput
from evo_tvm.quantize.run_model import model_inputs
from evo_tvm.runtime.gates import CurvePoint
from evo_tvm.runtime.module import Module
from evo_tvm.target import Target, resolve

if TYPE_CHECKING:
    from evo_tvm.quantize.accuracy_goal import LabelSource
    from evo_tvm.quantize.calibration_data import CalibrationSource

Progress = Callable[[str, int, int], None]

#: Hooks that are kept have at most this share of the model's parameters together.
PARAMETER_SHARE = 0.01
#: At most so many exits are kept.
MOST_EXITS = 3
#: Kinds of gates that are trained here.
TRAINED: tuple[Kind, ...] = ("skip", "exit")
TRAINERS = {"backprop": train_backprop, "forward-forward": train_forward_forward}
_EPOCHS = 12
#: Held-back samples that are timed with and without gates, in turn.
_TIMED = 400


@dataclass(frozen=True)
class Gated:
    """A model with gates; its hooks, in the order of the artifact's gates; and what was found."""

    artifact: Artifact
    hooks: tuple[Hook, ...]
    report: GateReport


def gate(
    model: ModelSource,
    data: CalibrationSource,
    *,
    labels: LabelSource | None = None,
    holdout: CalibrationSource | None = None,
    holdout_labels: LabelSource | None = None,
    max_drop: float = 0.003,
    kinds: Sequence[Kind] = ("skip", "exit"),
    target: str | Target = "host",
    num_threads: int = 1,
    trainer: str = "backprop",
    samples: int | None = 20_000,
    memory_mb: float = 256,
    epochs: int = _EPOCHS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Gated:
    """Attaches gates to an ONNX model, whose own weights stay as they are, and compiles it for this machine.

    data: what hooks learn from, as `evo_tvm.quantize` takes it. labels: of the data; without them, hooks learn from
    what the model says. holdout: what thresholds are chosen on; every fifth sample of the data where it is None.
    max_drop: how far accuracy on these, or agreement with the model where there are no labels, may fall: 0.003 is 0.3
    points. kinds: "skip", "exit". trainer: "backprop" or "forward-forward". samples: at most so many are learnt from.
    memory_mb: what they may take.

    Raises ModelError: no site for a gate. InputError: data or labels that do not fit, or too few. UsageError: an option
    that cannot be. What compiling raises.
    """
    say = progress or (lambda text, done, total: None)
    check_options(max_drop, kinds, trainer, epochs)
    inputs = model_inputs(read_model(model))
    learn = open_samples(data, labels, inputs, samples)
    judged = None if holdout is None else open_samples(holdout, holdout_labels, inputs)
    if judged is None:
        learn, judged = split(learn)
    bench = Workbench.open(model, learn.data.shapes, target, num_threads, say)
    imported = bench.imported
    sites = require_sites(imported.module, tuple(kinds))
    for some, where in ((learn, "labels"), (judged, "labels of the holdout")):
        check_classes(some, int(imported.outputs[0].shape[-1]), where)
    rows = bench.look(sites, learn, memory_mb, seed)
    parameters = parameters_of(imported.module)
    hidden = hidden_of(sites, int(PARAMETER_SHARE * parameters), MOST_EXITS)
    hooks = teach(rows, sites, hidden, TRAINERS[trainer], epochs, seed, say)
    costs = bench.measure(hooks)
    every, accuracy = bench.observe(hooks, judged, costs)
    say("choose thresholds", 0, 1)
    choice, curve = search(every, costs, accuracy - max_drop, most_exits=MOST_EXITS)
    found = findings(hooks, gate_names(hooks), costs, choice)
    artifact, final = bench.attach(hooks, found, curve)
    report = GateReport(
        metric="agreement" if judged.labels is None else "accuracy",
        max_drop=max_drop,
        samples=len(judged),
        learnt_from=len(rows),
        ungated=accuracy,
        predicted=(choice.accuracy, choice.latency),
        measured=bench.verify(artifact, judged),
        share=sum(one.parameters for one in found if one.attached) / parameters,
        full_ms=costs.full_ms,
        gates=found,
        kinds=_by_kind(every, costs, accuracy - max_drop),
        curve=curve,
    )
    return Gated(artifact, final, report)


@dataclass(frozen=True)
class Workbench:
    """Compiles the model with one set of hooks or another, and runs it."""

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
        names = gate_names([hooks[i] for i in kept])
        artifact = self.compile([replace(hooks[i], threshold=found[i].threshold) for i in kept])
        order = [kept[names.index(gate.name)] for gate in artifact.manifest.gates]
        points = [CurvePoint(_thresholds(hooks, p, order), p.latency, p.accuracy) for p in curve] if kept else []
        artifact = replace(artifact, manifest=replace(artifact.manifest, curve=tuple(points)))
        return artifact, tuple(replace(hooks[i], threshold=found[i].threshold) for i in order)

    def explorer(self, sites: Sequence[Site], seed: int = 0) -> Explorer:
        """Looks at inputs, for hooks at these sites."""
        hooks = [_placeholder(site) for site in sites if site.kind != "exit"]
        features, whole = (list(features_of(sites, exits)) for exits in (False, True))
        module = self.compile(hooks, [*dict.fromkeys([*features, *whole])]).module(self.num_threads)
        return Explorer(module, self.output, gate_names(hooks), features, whole, seed)

    def look(self, sites: Sequence[Site], samples: Samples, memory_mb: float = 256, seed: int = 0) -> Reservoir:
        """What sites see of the samples, and what leaving blocks out does, in at most so much memory."""
        rows: Reservoir | None = None
        explorer, count = self.explorer(sites, seed), len(samples)
        for i, (feed, label) in enumerate(samples):
            row = explorer(feed, label)
            if rows is None:
                rows = Reservoir(row, min(memory_mb * MEGABYTE, count * _row_bytes(row)), seed)
            rows.add(row)
            if i % 64 == 0:
                self.say("look at samples", i, count)
        assert rows is not None  # open_samples refuses data without a sample
        return rows

    def measure(self, hooks: Sequence[Hook]) -> Costs:
        """The times of kernels, with all gates there and none of them doing anything."""
        self.say("measure", 0, 1)
        artifact = self.compile(hooks)
        with artifact.module(self.num_threads) as module:
            module.force("full")
            times = [kernel.median_ms for kernel in module.profile(repeat=50, warmup=10).kernels]
        return costs_of(artifact.manifest.kernels, times, hooks, gate_names(hooks))

    def observe(self, hooks: Sequence[Hook], samples: Samples, costs: Costs) -> tuple[list[Outcomes], float]:
        """Outcomes for each strictness; and the accuracy without gates."""
        skips = [hook for hook in hooks if hook.kind != "exit"]
        exits = [hook for hook in hooks if hook.kind == "exit"]
        names = gate_names(skips)
        every: list[Outcomes] = []
        wanted = None if samples.labels is None else np.array([label for _, label in samples], np.int64)
        with self.compile(skips, [*dict.fromkeys(hook.feature for hook in exits)]).module(self.num_threads) as module:
            for number, strictness in enumerate(STRICTNESSES if skips else STRICTNESSES[:1]):
                text = f"run held-back samples, {number + 1} of {len(STRICTNESSES) if skips else 1}"
                thresholds = skip_thresholds(strictness, costs)
                plain = every[0].plain if every else None
                outcomes, found = observe(
                    module, self.output, names, exits, thresholds, samples, wanted, plain, self.say, text
                )
                wanted = found if wanted is None else wanted
                every.append(outcomes)
        return every, float(every[0].right.mean())

    def verify(self, artifact: Artifact, samples: Samples) -> tuple[float, float]:
        """Accuracy of the compiled model over all samples, and its time as a share of the one without gates."""
        plain = self.compile(())
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


def _time(module: Module, feed: Mapping[str, Array]) -> float:
    start_ns = time.perf_counter_ns()
    module.run(feed)
    return time.perf_counter_ns() - start_ns


def _typical(times: Array) -> float:
    """The mean without the slowest twentieth, which others on this machine made slow."""
    return float(np.sort(times)[: max(len(times) * 19 // 20, 1)].mean())


def _row_bytes(row: Mapping[str, Array]) -> int:
    return sum(max(np.asarray(value).nbytes, 1) for value in row.values())


def _placeholder(site: Site) -> Hook:
    """A hook whose gate is forced, until there is a trained one."""
    return Hook(site.site, site.kind, site.feature, start(site.channels, 0, site.outputs), NEVER_SKIP)


def _thresholds(hooks: Sequence[Hook], choice: Choice, kept: Sequence[int]) -> tuple[float, ...]:
    """Of the hooks that are kept, in order."""
    skips, exits = iter(choice.skip_thresholds), iter(choice.exit_thresholds)
    every = [next(exits) if hook.kind == "exit" else next(skips) for hook in hooks]
    return tuple(every[i] for i in kept)


def _by_kind(every: Sequence[Outcomes], costs: Costs, floor: float) -> tuple[KindFinding, ...]:
    """What gates that skip, and exits, give alone."""
    skips, exits = len(costs.skip_hooks), len(costs.exit_hooks)
    found = []
    if skips:
        choice, _ = search(every, costs, floor, exits=[False] * exits)
        found.append(KindFinding("skip", choice.latency, choice.accuracy))
    if exits:
        choice, _ = search(every, costs, floor, skips=[False] * skips, most_exits=MOST_EXITS)
        found.append(KindFinding("exit", choice.latency, choice.accuracy))
    return tuple(found)


def check_options(max_drop: float, kinds: Sequence[str], trainer: str, epochs: int) -> None:
    """Raises UsageError: an option that cannot be."""
    if not 0 <= max_drop <= 1:
        raise UsageError("not a drop that can be allowed", where="max_drop", expected="0 to 1", got=max_drop)
    if by_hand := [kind for kind in as_kinds(kinds) if kind not in TRAINED]:
        raise UsageError(
            f"gates of the kind {by_hand[0]} are not trained here",
            where="kinds",
            expected=", ".join(TRAINED),
            got=by_hand[0],
            hint="Attach hooks of your own with evo_tvm.compile_gated.compile_gated.",
        )
    if trainer not in TRAINERS:
        raise UsageError("unknown trainer", where="trainer", expected=" or ".join(TRAINERS), got=trainer)
    if epochs < 1:
        raise UsageError("training needs an epoch", where="epochs", expected="at least 1", got=epochs)
