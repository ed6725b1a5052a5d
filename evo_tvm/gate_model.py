"""`evo_tvm.gate`: attaches gates to a finished model, trains them, and compiles what pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from evo_tvm.artifact import Artifact
from evo_tvm.errors import UsageError
from evo_tvm.frontend.read_model import ModelSource, read_model
from evo_tvm.gates.costs import Costs
from evo_tvm.gates.greedy import try_thresholds
from evo_tvm.gates.hook import KINDS, Hook, Kind, as_kinds
from evo_tvm.gates.near_zero import near_zero_hook
from evo_tvm.gates.network import check_examples
from evo_tvm.gates.report import GateReport, KindFinding, findings, without_gates
from evo_tvm.gates.samples import Samples, check_classes, open_samples, split
from evo_tvm.gates.sites import parameters_of, require_sites
from evo_tvm.gates.teach import hidden_of, teach
from evo_tvm.gates.thresholds import Outcomes, search
from evo_tvm.gates.train_backprop import train_backprop
from evo_tvm.gates.train_forward_forward import train_forward_forward
from evo_tvm.gates.workbench import Progress, Workbench
from evo_tvm.passes._gates import gate_names
from evo_tvm.quantize.run_model import model_inputs
from evo_tvm.target import Target

if TYPE_CHECKING:
    from evo_tvm.quantize.accuracy_goal import LabelSource
    from evo_tvm.quantize.calibration_data import CalibrationSource

#: Hooks that are kept have at most this share of the model's parameters together.
PARAMETER_SHARE = 0.01
#: At most so many exits are kept.
MOST_EXITS = 3
TRAINERS = {"backprop": train_backprop, "forward-forward": train_forward_forward}
#: Instead of a trainer: gates of channels whose hooks follow from the model's own weights.
UNTRAINED = "near-zero"
_EPOCHS = 12
#: Gates with which the model is measured to take more of its time than this are not attached.
_WORTH = 0.99
#: Thresholds are tried until so many times of what may be lost is: the curve has them, too.
_FAR = 3


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
    points. kinds: "skip", "exit", "channel", "space", "precision", of which the last needs a quantized model. trainer:
    "backprop", "forward-forward", or, for channels alone, "near-zero", which needs no training. samples: at most so
    many are learnt from. memory_mb: what they may take.

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
    sites = require_sites(imported.module, tuple(kinds), bench.target)
    for some, where in ((learn, "labels"), (judged, "labels of the holdout")):
        check_classes(some, int(imported.outputs[0].shape[-1]), where)
    if trainer == UNTRAINED:
        hooks, learnt = tuple(near_zero_hook(imported.module, site.site, site.outputs) for site in sites), 0
    else:
        check_examples(len(learn))
        rows = bench.look(sites, learn, memory_mb, seed)
        hidden = hidden_of(sites, parameters_for_hooks(bench), MOST_EXITS)
        hooks = teach(rows, sites, hidden, TRAINERS[trainer], epochs, seed, say)
        learnt = min(len(rows), len(learn))
    found = attach(bench, hooks, judged, max_drop, learnt)
    absent = tuple(kind for kind in kinds if all(site.kind != kind for site in sites))
    return replace(found, report=replace(found.report, absent=absent))


def parameters_for_hooks(bench: Workbench) -> int:
    """How many parameters hooks that are kept may have together."""
    return int(PARAMETER_SHARE * parameters_of(bench.imported.module))


def attach(bench: Workbench, hooks: Sequence[Hook], judged: Samples, max_drop: float, learnt: int) -> Gated:
    """Chooses thresholds on samples that were held back, and compiles the model with the gates that pay.

    learnt: from how many samples, for the report.
    """
    costs = bench.measure(hooks)
    with bench.observer(hooks, judged) as observer:
        accuracy = float(observer.plain.mean())
        every = try_thresholds(observer, hooks, costs, accuracy - _FAR * max_drop)
    bench.say("choose thresholds", 0, 1)
    choice, curve = search(every, costs, accuracy - max_drop, most_exits=MOST_EXITS)
    found = findings(hooks, gate_names(hooks), costs, choice)
    artifact, final = bench.attach(hooks, found, curve)
    measured = bench.verify(artifact, hooks, judged)
    if final and measured[1] > _WORTH:
        found = without_gates(found, f"with the gates together the model takes {measured[1]:.1%} of its time")
        artifact, final = bench.attach(hooks, found, ())
        measured = bench.verify(artifact, hooks, judged)
    report = GateReport(
        metric="agreement" if judged.labels is None else "accuracy",
        max_drop=max_drop,
        samples=len(judged),
        learnt_from=learnt,
        ungated=accuracy,
        predicted=(choice.accuracy, choice.latency),
        measured=measured,
        share=sum(one.parameters for one in found if one.attached) / parameters_of(bench.imported.module),
        full_ms=costs.full_ms,
        gates=found,
        kinds=_by_kind(hooks, every, costs, accuracy - max_drop),
        curve=curve,
    )
    return Gated(artifact, final, report)


def _by_kind(hooks: Sequence[Hook], every: Sequence[Outcomes], costs: Costs, floor: float) -> tuple[KindFinding, ...]:
    """What gates of each kind give alone."""
    others, exits = [hook.kind for hook in hooks if hook.kind != "exit"], len(costs.exit_hooks)
    found = []
    for kind in KINDS:
        if all(hook.kind != kind for hook in hooks):
            continue
        only = [other == kind for other in others]
        choice, _ = search(every, costs, floor, only, [kind == "exit"] * exits, MOST_EXITS)
        found.append(KindFinding(kind, choice.latency, choice.accuracy))
    return tuple(found)


def check_options(max_drop: float, kinds: Sequence[str], trainer: str, epochs: int) -> None:
    """Raises UsageError: an option that cannot be."""
    if not 0 <= max_drop <= 1:
        raise UsageError("not a drop that can be allowed", where="max_drop", expected="0 to 1", got=max_drop)
    known = (*TRAINERS, UNTRAINED)
    if trainer not in known:
        raise UsageError("unknown trainer", where="trainer", expected=" or ".join(known), got=trainer)
    if as_kinds(kinds) != ("channel",) and trainer == UNTRAINED:
        raise UsageError(
            "feature maps near zero tell about channels alone",
            where="trainer",
            expected="the kind channel",
            got=", ".join(kinds),
            hint="Train hooks of other kinds with backprop.",
        )
    if epochs < 1:
        raise UsageError("training needs an epoch", where="epochs", expected="at least 1", got=epochs)
