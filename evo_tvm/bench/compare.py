"""One model through evo_tvm and through other runtimes: same input, outputs checked, times side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import evo_tvm
from evo_tvm._extras import needs_extra
from evo_tvm.bench import provenance
from evo_tvm.bench.compile_apart import compile_apart
from evo_tvm.bench.inputs import Array, random_inputs
from evo_tvm.bench.peers import Peer, Session, find_peers
from evo_tvm.bench.provenance import Provenance
from evo_tvm.bench.timing import Ratio, Timing, measure, speedup
from evo_tvm.errors import CompileError, EvoError, ModelError

#: What we call ourselves beside the peers.
OURS = "evo_tvm"
#: Largest max |difference| / max |reference| of a float32 model that counts as the same answer.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class PeerResult:
    """A peer's figures beside ours. `difference` is max |ours - theirs| / max |theirs|, the worst output's."""

    peer: Peer
    difference: float
    timing: Timing
    speedup: Ratio

    def agrees(self, tolerance: float = TOLERANCE) -> bool:
        """Whether the outputs are the same, rounding apart."""
        return self.difference <= tolerance


@dataclass(frozen=True)
class Refused:
    """A peer that does not convert, load or run the model, and its reason."""

    peer: Peer
    error: EvoError


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; times in milliseconds per run."""

    model: str
    inputs: tuple[str, ...]
    threads: int
    timing: Timing
    peers: tuple[PeerResult, ...]
    refused: tuple[Refused, ...]
    provenance: Provenance

    def warnings(self) -> tuple[str, ...]:
        """What makes the figures doubtful, and the remedies."""
        timings = (self.timing, *(result.timing for result in self.peers))
        return (*self.provenance.warnings(), *(text for taken in timings for text in taken.warnings()))

    def as_json(self) -> dict[str, object]:
        """Plain data for `--json`."""
        return {
            "model": self.model,
            "inputs": list(self.inputs),
            "threads": self.threads,
            OURS: self.timing.as_json(),
            "peers": [
                {
                    **result.timing.as_json(),
                    "difference": result.difference,
                    "speedup": result.speedup.value,
                    "speedup_by_round": list(result.speedup.by_round),
                }
                for result in self.peers
            ],
            "refused": [{"name": refused.peer.name, "reason": refused.error.what} for refused in self.refused],
            "provenance": self.provenance.as_json(),
            "warnings": list(self.warnings()),
        }


def compare(
    model: str | Path,
    peers: Sequence[str] = ("ort",),
    *,
    threads: int = 1,
    rounds: int = 5,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Comparison:
    """Compile the ONNX file `model` for this machine and put it beside `peers`, on random inputs drawn from `seed`.

    Each runtime gets `threads` threads. Outputs are compared by name before anything is timed; a difference does not
    raise: see `PeerResult.agrees`. Compiling happens in a process of its own. A peer that refuses the model is left out
    as long as another one is left.

    Raises
    ------
    EvoError: the model does not compile, a peer is unknown or not installed, or every peer refuses the model.
    """
    chosen = find_peers(peers)
    with tempfile.TemporaryDirectory(prefix="evo_tvm-compare-") as name:
        folder = Path(name)
        artifact = folder / "model.evo"
        compile_apart(Path(model), artifact, num_threads=threads, input_shapes=input_shapes, progress=progress)
        module = evo_tvm.load(artifact, num_threads=threads)
        inputs = random_inputs(module.inputs, seed)
        ours = module.run(inputs)
        source = _with_shapes(Path(model), input_shapes, folder)
        answers, refused = _ask(chosen, source, threads, folder, inputs)
    differences = {name: worst_difference(ours, theirs) for name, (_, theirs) in answers.items()}

    circumstances = provenance.here(threads, [name for peer in chosen for name in peer.distributions])
    times = measure(
        {OURS: lambda: module.run(inputs)} | {name: _runner(session, inputs) for name, (session, _) in answers.items()},
        rounds=rounds,
        progress=progress,
    )
    return Comparison(
        model=str(model),
        inputs=tuple(str(spec) for spec in module.inputs),
        threads=threads,
        timing=times[OURS],
        peers=tuple(
            PeerResult(peer, differences[peer.name], times[peer.name], speedup(times[OURS], times[peer.name]))
            for peer in chosen
            if peer.name in answers
        ),
        refused=refused,
        provenance=circumstances,
    )


def _with_shapes(model: Path, shapes: Mapping[str, Sequence[int]] | None, folder: Path) -> Path:
    """The model, or a copy whose inputs have these shapes: peers too may plan for them."""
    if not shapes:
        return model
    with needs_extra("compiler"):
        from evo_tvm.bench.peers.prepare_model import with_input_shapes
    fixed = folder / "fixed.onnx"
    with_input_shapes(model, shapes, fixed)
    return fixed


def _ask(
    peers: Sequence[Peer], model: Path, threads: int, folder: Path, inputs: Mapping[str, Array]
) -> tuple[dict[str, tuple[Session, dict[str, Array]]], tuple[Refused, ...]]:
    """Each peer's session and its answer by the peer's name, and the peers that refuse the model."""
    answers: dict[str, tuple[Session, dict[str, Array]]] = {}
    refused = []
    for peer in peers:
        try:
            session = peer.open(model, threads, folder)
            answers[peer.name] = session, {name: value.copy() for name, value in session.run(inputs).items()}
        except ModelError as error:
            refused.append(Refused(peer, error))
    if not answers:
        raise refused[0].error
    return answers, tuple(refused)


def _runner(session: Session, inputs: Mapping[str, Array]) -> Callable[[], object]:
    return lambda: session.run(inputs)


def worst_difference(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> float:
    """The largest max |ours - theirs| / max |theirs| over the outputs.

    Infinite where only one side has a NaN or an infinity at some place, or where theirs is zero throughout and ours is
    not.

    Raises
    ------
    CompileError: the two sides have different outputs or shapes.
    """
    if set(ours) != set(theirs):
        raise CompileError("the outputs' names differ", expected=sorted(theirs), got=sorted(ours))
    return max((difference(ours[name], theirs[name], name) for name in theirs), default=0.0)


def difference(ours: Array, theirs: Array, name: str = "output") -> float:
    """max |ours - theirs| / max |theirs| of two arrays of one shape; 0.0 for empty ones."""
    if ours.shape != theirs.shape:
        raise CompileError("the output's shapes differ", where=name, expected=theirs.shape, got=ours.shape)
    left, right = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    finite = np.isfinite(right)
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True) or not np.isfinite(left[finite]).all():
        return float("inf")
    worst = float(np.max(np.abs(left[finite] - right[finite]), initial=0.0))
    scale = float(np.max(np.abs(right[finite]), initial=0.0))
    if worst == 0.0:
        return 0.0
    return worst / scale if scale else float("inf")
