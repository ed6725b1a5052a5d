"""Models x threads x batches through evo_tvm and its peers; each combination is a task in a process of its own.

What is measured is a `Row`. An engine that refuses a model, answers wrongly, or takes the process down loses its cell
and no more: the task starts again without it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import evo_tvm
from evo_tvm import errors
from evo_tvm._extras import needs_extra
from evo_tvm.bench import provenance
from evo_tvm.bench.apart import answering, messages
from evo_tvm.bench.compare import OURS, TOLERANCE, worst_difference
from evo_tvm.bench.compile_apart import compile_apart
from evo_tvm.bench.inputs import Array, random_inputs
from evo_tvm.bench.peers import PEERS, Session, find_peers
from evo_tvm.bench.peers.face import converted
from evo_tvm.bench.timing import Timing, measure
from evo_tvm.errors import EvoError, UsageError

ENGINES = (OURS, *PEERS)
#: Whose outputs the others are held against.
REFERENCE = "ort"
PRECISIONS = ("fp32", "int8", "auto")
#: Above this max |difference| / max |reference| an engine computes something else, and is not timed.
WRONG = {"fp32": 1e-2, "int8": 0.5, "auto": 1.0}
#: Above this evo_tvm's outputs are not the reference's. Engines round quantized values in orders of their own, and
#: networks with random weights carry a different byte far; with "auto" one of the two may be in float.
TOLERANCES = {"fp32": TOLERANCE, "int8": 0.1, "auto": 0.5}
#: After this many seconds a task has hung.
TASK_S = 3600.0


@dataclass(frozen=True)
class Task:
    """What one row is measured from. `model` is a name of `zoo`, "light_" and one of `light`, or an ONNX file.

    precision: "fp32", or "int8": the model as ONNX Runtime quantizes it, for all engines; "auto": for each engine
    whichever of the two it runs faster, of which evo_tvm's own "auto" sees the quantized one.
    """

    model: str
    batch: int
    threads: int
    rounds: int
    engines: tuple[str, ...]
    turn_ms: float = 300.0
    precision: str = "fp32"

    @property
    def label(self) -> str:
        """The model's name in a table."""
        return Path(self.model).stem.removeprefix("light_")


@dataclass(frozen=True)
class Cell:
    """One engine's figures; `difference` is max |its - reference| / max |reference|, the worst output's."""

    timing: Timing
    difference: float
    precision: str


@dataclass(frozen=True)
class Row:
    """What a task found: a cell for each engine that ran, and why the others did not."""

    task: Task
    cells: Mapping[str, Cell]
    refused: Mapping[str, str]
    provenance: Mapping[str, Any]

    def as_json(self) -> dict[str, object]:
        """Plain data: one line of the file of rows."""
        cells = {
            name: {**cell.timing.as_json(), "difference": cell.difference, "precision": cell.precision}
            for name, cell in self.cells.items()
        }
        return {
            "task": asdict(self.task),
            "cells": cells,
            "refused": dict(self.refused),
            "provenance": dict(self.provenance),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Row:
        """The row that `as_json` gave."""
        cells = {
            name: Cell(
                Timing(name, tuple(tuple(turn) for turn in cell["rounds_ms"])), cell["difference"], cell["precision"]
            )
            for name, cell in data["cells"].items()
        }
        task = Task(**{**data["task"], "engines": tuple(data["task"]["engines"])})
        return Row(task, cells, data["refused"], data["provenance"])


def check_engines(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each known and installed.

    Raises UsageError or MissingExtraError.
    """
    peers = [name for name in names if name != OURS]
    if peers:
        find_peers(peers)
    return tuple(names)


def check_models(names: Sequence[str]) -> None:
    """Raise UsageError for a name that `build_model` would not know."""
    with needs_extra("compiler"):
        from evo_tvm.bench import light, zoo
    known = [*zoo.NAMES, *(f"light_{name}" for name in light.NAMES)]
    for name in names:
        if name not in known and not (name.endswith(".onnx") and Path(name).is_file()):
            raise UsageError(f"no model {name!r}", hint=f"Give an .onnx file, or one of {', '.join(known)}.")


def run(task: Task, folder: Path, progress: Callable[[str], None] = lambda text: None) -> Row:
    """Measure one task; models and what converters make of them are kept in `folder`.

    Raises
    ------
    EvoError: the model cannot be built.
    """
    refused: dict[str, str] = {}
    while True:
        left = replace(task, engines=tuple(name for name in task.engines if name not in refused))
        if not left.engines:
            return Row(task, {}, refused, provenance.here(task.threads).as_json())
        suspect = None
        for message in messages(__name__, {"task": asdict(left), "folder": str(folder)}, TASK_S):
            if "error" in message:
                raise getattr(errors, message["error"])(message["text"])
            if "engine" in message:
                suspect = message["engine"]
                progress(f"{suspect}: {message['doing']}")
            if "row" in message:
                row = Row.from_json(message["row"])
                return replace(row, task=task, refused={**refused, **row.refused})
            if "status" in message:
                if suspect is None:
                    raise EvoError(f"the process ended with status {message['status']}", where=task.model)
                refused[suspect] = f"its process ended with status {message['status']}"


def build_model(name: str, batch: int, path: Path) -> None:
    """Write the model of this name or file, for this batch, to `path`.

    Raises
    ------
    UsageError: an unknown name, or a file whose inputs have other free sizes than the batch, or another batch.
    """
    with needs_extra("compiler"):
        import onnx

        from evo_tvm.bench import light, zoo
        from evo_tvm.bench.peers.prepare_model import input_specs, with_input_shapes
    if not name.endswith(".onnx"):
        small = name.removeprefix("light_")
        onnx.save(zoo.build(name, batch) if small == name else light.light(small, batch), path)
        return
    specs = input_specs(onnx.load(name, load_external_data=False))
    for spec in specs:
        if spec.shape[:1] not in ((0,), (batch,)) or 0 in spec.shape[1:]:
            raise UsageError(
                f"the input {spec.name!r} does not fit a batch of {batch}",
                where=name,
                got="x".join(str(size or "?") for size in spec.shape),
            )
    with_input_shapes(Path(name), {spec.name: (batch, *spec.shape[1:]) for spec in specs}, path)


class OwnSession:
    """evo_tvm as one engine among the others; it compiles in a process of its own."""

    def __init__(self, model: Path, threads: int, folder: Path, precision: str = "fp32") -> None:
        artifact = converted(model, folder, f".{precision}.{threads}.evo")
        if not artifact.exists():
            compile_apart(model, artifact, num_threads=threads, precision=precision)
        self._module = evo_tvm.load(artifact, num_threads=threads)
        chosen = self._module.manifest.quantization.get("precision")
        self.precision = "f32" if chosen is None else chosen["chosen"]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, of the inputs by name."""
        return self._module.run(inputs)


def measure_task(task: Task, folder: Path, say: Callable[[str, str], None]) -> Row:
    """Measure in this process; `say` hears which engine is at work, and what it does, before it does it."""
    with needs_extra("compiler"):
        import onnx

        from evo_tvm.bench.peers.prepare_model import input_specs
        from evo_tvm.bench.quantized import quantize_as_ort
    model = folder / f"{task.label}.{task.batch}.onnx"
    if not model.exists():
        build_model(task.model, task.batch, model)
    plain = model
    if task.precision != "fp32":
        model = plain.with_suffix(".int8.onnx")
        if not model.exists():
            quantize_as_ort(plain, model)
    inputs = random_inputs(input_specs(onnx.load(model, load_external_data=False)))
    sessions: dict[str, Session] = {}
    answers: dict[str, dict[str, Array]] = {}
    refused: dict[str, str] = {}
    for name in task.engines:
        say(name, "loads the model")
        try:
            sessions[name] = _open(name, task, plain, model, folder, inputs)
            answers[name] = {key: value.copy() for key, value in sessions[name].run(inputs).items()}
        except EvoError as error:
            refused[name] = error.what

    reference = REFERENCE if REFERENCE in answers else next(iter(answers), None)
    differences: dict[str, float] = {}
    for name, answer in answers.items():
        assert reference is not None
        try:
            differences[name] = worst_difference(answer, answers[reference])
        except EvoError as error:
            refused[name] = error.what
            continue
        if differences[name] > WRONG[task.precision] and (name == OURS or PEERS[name].fp32):
            refused[name] = f"wrong answer: max |difference| / max |reference| is {differences[name]:.0e}"
    timed = {name: sessions[name] for name in sessions if name not in refused}
    circumstances = provenance.here(
        task.threads, [part for name in task.engines if name != OURS for part in PEERS[name].distributions]
    )
    times = measure(
        {name: _runner(session, inputs) for name, session in timed.items()},
        rounds=task.rounds,
        turn_ms=task.turn_ms,
        progress=lambda name, done, total: say(name, f"turn {done + 1} of {total}"),
    )
    cells = {name: Cell(times[name], differences[name], sessions[name].precision) for name in timed}
    return Row(task, cells, refused, circumstances.as_json())


def _open(
    name: str, task: Task, plain: Path, model: Path, folder: Path, inputs: Mapping[str, Array]
) -> Session | OwnSession:
    """A session of the engine; with "auto" of whichever model it runs faster."""
    if name == OURS:
        return OwnSession(model, task.threads, folder, "auto" if task.precision == "auto" else "fp32")
    if task.precision != "auto":
        return PEERS[name].open(model, task.threads, folder)
    found: dict[str, Session] = {}
    for precision, path in (("f32", plain), ("int8", model)):
        try:
            found[precision] = PEERS[name].open(path, task.threads, folder)
            found[precision].run(inputs)
        except EvoError:
            found.pop(precision, None)
            if precision == "int8" and not found:
                raise
    times = measure({each: _runner(session, inputs) for each, session in found.items()}, turn_ms=task.turn_ms)
    best = min(times, key=lambda each: times[each].min_ms)
    found[best].precision = best
    return found[best]


def _runner(session: Session, inputs: Mapping[str, Array]) -> Callable[[], object]:
    return lambda: session.run(inputs)


def _main(arguments: list[str]) -> None:
    with answering(arguments) as (wanted, send):
        task = Task(**{**wanted["task"], "engines": tuple(wanted["task"]["engines"])})
        try:
            row = measure_task(task, Path(wanted["folder"]), lambda name, doing: send(engine=name, doing=doing))
        except EvoError as error:
            send(error=type(error).__name__, text=str(error))
        else:
            send(row=row.as_json())


if __name__ == "__main__":
    _main(sys.argv[1:])
