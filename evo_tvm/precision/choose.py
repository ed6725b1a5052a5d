"""`precision="auto"`: each layer of a quantized model in float or in integers, whichever makes the model faster.

Both pure forms are compiled and their kernels timed, or only planned and predicted; layers whose integers take longer,
conversions included, become float; and the fastest whole form is taken. So where it is measured, the result is at least
as fast as the better of the two pure forms. No form rounds what the pure integers do not round, so that no layer loses
more than there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, TypeVar

from evo_tvm.artifact import Artifact
from evo_tvm.errors import UsageError
from evo_tvm.frontend import Imported
from evo_tvm.frontend.read_model import ModelSource
from evo_tvm.pipeline import Assembled, Planned, assemble, clean, plan
from evo_tvm.plan.link_layers import Link, link_layers
from evo_tvm.plan.lower_integer import integer_layers
from evo_tvm.plan.read_relax import read_relax
from evo_tvm.plan.unify_bytes import unify_bytes
from evo_tvm.precision.decide import decide_precisions
from evo_tvm.precision.judge import Feed, Judge, Measurements, Predictions, runs_here
from evo_tvm.precision.report import Form, LayerPrecision, PrecisionReport
from evo_tvm.target import Target
from evo_tvm.workload import workload_of

if TYPE_CHECKING:
    from evo_tvm.executor.build import Progress

#: Mixed forms that are tried: each is decided by what kernels took in those before it.
_MIXED = 3
#: Outputs of a mixed form may be this much worse than those of the pure integers, by chance: it rounds less.
_CHANCE_DB = 2.0
#: A form of the model, compiled, or planned where predictions decide.
_Model = TypeVar("_Model", Assembled, Planned)


def choose_precision(
    quantized: ModelSource,
    plain: ModelSource | None,
    target: Target,
    num_threads: int = 1,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    algorithms: Mapping[str, str] | None = None,
    samples: Sequence[Feed] = (),
    progress: Progress | None = None,
    predict: bool = False,
) -> tuple[Artifact, PrecisionReport]:
    """The fastest form of a quantized model, and why it is.

    plain: the float model that it was made of; where it is None, the float form is the quantized model without its
    roundings, its weights as they were rounded. samples: inputs by name, to take errors over; random ones where there
    are none. predict: decide by predicted times; the form that is taken is then the only one that is compiled. So it is
    where this machine cannot run the target's code. Other arguments and errors are those of `evo_tvm.compile`.

    Raises UsageError: no layer is in integers.
    """
    imported = clean(quantized, input_shapes, progress)
    graph = unify_bytes(read_relax(imported.module))
    layers = integer_layers(graph)
    if not layers:
        raise UsageError(
            "there is nothing to choose: no layer of the model is in integers",
            hint="Give a quantized model, or calibration data to quantize it with.",
        )
    float_model = clean(plain, input_shapes, progress) if plain is not None else None

    def build(float_layers: Set[str] | None) -> Assembled:
        return assemble(imported, target, num_threads, algorithms, progress, float_layers=float_layers)

    def build_float() -> Assembled:
        if float_model is None:
            return build(frozenset(layers))
        return assemble(float_model, target, num_threads, algorithms, progress)

    links = link_layers(graph, layers)
    if predict or not runs_here(target):
        report = _by_predictions(imported, float_model, target, num_threads, algorithms, layers, links)
        if report.chosen == "fp32":
            return build_float().artifact, report
        floats = frozenset(layer.layer for layer in report.layers if layer.precision == "fp32")
        return build(None if report.chosen == "int8" else floats).artifact, report
    everywhere = build(frozenset(layers))
    pure = {"fp32": everywhere if float_model is None else build_float(), "int8": build(None)}
    judge = Measurements(num_threads, samples, everywhere.artifact.manifest.inputs)
    chosen, report = choose_form(pure, everywhere, build, layers, links, judge, compiled_in_integers)
    return chosen.artifact, report


def _by_predictions(
    imported: Imported,
    float_model: Imported | None,
    target: Target,
    num_threads: int,
    algorithms: Mapping[str, str] | None,
    layers: Sequence[str],
    links: Sequence[Link],
) -> PrecisionReport:
    """Which form is predicted to be the fastest; float_model: as of `choose_precision`, cleaned up."""

    def build(float_layers: Set[str] | None) -> Planned:
        return plan(imported, target, num_threads, algorithms, float_layers=float_layers)

    everywhere = build(frozenset(layers))
    pure = {"fp32": everywhere, "int8": build(None)}
    if float_model is not None:
        pure["fp32"] = plan(float_model, target, num_threads, algorithms)
    judge = Predictions(target, pure.values())
    return choose_form(pure, everywhere, build, layers, links, judge, planned_in_integers)[1]


def compiled_in_integers(form: Assembled) -> set[str]:
    """Layers whose kernels compute in integers."""
    return {layer for kernel in form.artifact.manifest.kernels if kernel.dtype == "int8" for layer in kernel.layers}


def planned_in_integers(form: Planned) -> set[str]:
    """The same before it is compiled."""
    return {group.name for group in form.kernels if workload_of(form.graph, group).dtype == "uint8"}


def choose_form(
    pure: Mapping[str, _Model],
    everywhere: _Model,
    build: Callable[[Set[str] | None], _Model],
    layers: Sequence[str],
    links: Sequence[Link],
    judge: Judge,
    in_integers: Callable[[_Model], Set[str]],
) -> tuple[_Model, PrecisionReport]:
    """The choice, by what `judge` says. pure: "fp32" and "int8". everywhere: all of `layers` in float. build: makes the
    model with some layers in float; of None see `pipeline.kernel_graph`. in_integers: layers that compute in integers.
    """
    forms, floats = dict(pure), {"fp32": frozenset(layers), "int8": frozenset[str]()}
    forms["fused"], floats["fused"] = build(frozenset()), frozenset()
    integers = in_integers(forms["fused"])
    candidates = [layer for layer in layers if layer in integers]
    profiled = {"fp32": everywhere, "int8": forms["fused"]}
    while True:
        float_ms, int_ms = _layer_times(judge.layers_ms(profiled, candidates), floats)
        chosen = decide_precisions(float_ms, int_ms, links, judge.element_ms())
        number = len(profiled) - 1
        if number > _MIXED or chosen in floats.values() or chosen == frozenset(candidates):
            break
        name = f"mixed {number}"
        floats[name] = chosen
        forms[name] = profiled[name] = build(chosen)
    turns, quality = judge.wholes_ms(forms), judge.outputs_db(forms, "fp32")
    compared = tuple(
        Form(name, len(floats[name]), turns[name], quality.get(name), _refused(name, quality)) for name in forms
    )
    best, reason = _best(compared)
    taken = floats[best.name]
    choices = (
        LayerPrecision(n, "fp32" if n in taken else "int8", float_ms.get(n), int_ms[n]) for n in layers if n in int_ms
    )
    return forms[best.name], PrecisionReport(best.name, reason, judge.source, compared, tuple(choices))


def _layer_times(
    times: Mapping[str, Mapping[str, float]], floats: Mapping[str, Set[str]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Layer -> milliseconds in float, and in integers: in the pure forms, or among others of either type where it is so
    in a mixed form."""
    float_ms, int_ms = dict(times["fp32"]), dict(times["int8"])
    for name, found in times.items():
        if name not in ("fp32", "int8"):
            float_ms |= {layer: ms for layer, ms in found.items() if layer in floats[name] and layer in float_ms}
            int_ms |= {layer: ms for layer, ms in found.items() if layer not in floats[name]}
    return float_ms, int_ms


def _refused(name: str, quality: Mapping[str, float]) -> str:
    """Why a form is not to be taken, whatever its speed, or ""."""
    if name not in ("fp32", "int8") and name in quality and quality[name] < quality["int8"] - _CHANCE_DB:
        return f"its outputs are worse than those of int8: {quality[name]:.1f} dB, not {quality['int8']:.1f} dB"
    return ""


def _best(forms: Sequence[Form]) -> tuple[Form, str]:
    """The fastest form; one that is not pure has to be faster in most turns, too."""
    first, *others = sorted((form for form in forms if form.name in ("fp32", "int8")), key=lambda f: f.latency_ms)
    best, reason = first, f"the faster of the pure forms: {others[0].name} takes {others[0].latency_ms:.3f} ms"
    for form in forms:
        if form.name in ("fp32", "int8") or form.refused or form.latency_ms >= best.latency_ms:
            continue
        won = sum(ours < theirs for ours, theirs in zip(form.turns_ms, first.turns_ms, strict=True))
        if 2 * won > len(form.turns_ms):
            best, reason = form, f"faster than {first.name} in {won} of {len(form.turns_ms)} turns"
    return best, reason
