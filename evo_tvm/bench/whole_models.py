"""Whole models of many families, widths, depths and sizes, measured: what predictions of them are held against."""

from __future__ import annotations

import ctypes
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx

from evo_tvm.artifact import Artifact
from evo_tvm.bench.families import model
from evo_tvm.bench.random_networks import RANDOM, random_network
from evo_tvm.decide import Knowledge
from evo_tvm.errors import UsageError
from evo_tvm.executor.link import link_library
from evo_tvm.files import write_whole
from evo_tvm.pipeline import assemble, clean, plan
from evo_tvm.predict.model import Kernel
from evo_tvm.predict.predict_groups import kernel_of
from evo_tvm.runtime.module import Module
from evo_tvm.target import Target, resolve
from evo_tvm.tune.build_batch import EXPORTS, SOURCES
from evo_tvm.tune.timer import Reference, is_quick, loaded, locked

#: Family, width, depth, size.
Which: TypeAlias = tuple[str, float, float, int]
#: What predictions are tested with.
TESTED: Sequence[Which] = tuple(
    (family, width, depth, size)
    for family, variants in {
        "vgg": ((0.5, 1.0, 128), (0.25, 0.5, 224), (0.75, 0.5, 96), (0.35, 1.0, 192)),
        "resnet": ((0.5, 0.5, 160), (1.0, 0.5, 96), (0.75, 1.0, 128), (0.25, 1.0, 224)),
        "bottleneck": ((0.5, 0.5, 128), (0.25, 0.75, 192), (0.75, 0.3, 160), (1.0, 0.3, 96)),
        "resnext": ((0.5, 0.3, 160), (0.25, 0.5, 128), (0.75, 0.3, 96), (0.35, 0.3, 224)),
        "mobilenetv1": ((0.5, 1.0, 160), (1.0, 0.5, 128), (0.25, 1.0, 224), (0.75, 0.5, 192)),
        "mobilenetv2": ((0.75, 0.5, 224), (1.0, 1.0, 96), (0.5, 1.0, 128), (1.25, 0.3, 160)),
        "efficientnet": ((0.5, 0.5, 160), (1.0, 0.3, 128), (0.75, 0.5, 192), (1.25, 0.3, 96)),
        "mnasnet": ((0.5, 0.75, 128), (1.0, 0.3, 192), (0.75, 0.5, 160), (1.25, 0.5, 96)),
        "efficientnet_silu": ((0.5, 0.5, 192), (1.0, 0.3, 96), (0.75, 0.3, 128), (0.35, 0.5, 224)),
        "squeezenet": ((1.0, 1.0, 160), (0.5, 2.0, 224), (0.75, 1.0, 96), (1.25, 1.0, 128)),
        "densenet": ((0.5, 0.5, 128), (1.0, 0.25, 160), (0.75, 0.25, 96), (0.5, 0.25, 224)),
        "inception": ((0.5, 0.5, 160), (1.0, 0.5, 96), (0.75, 0.5, 128), (0.35, 1.0, 192)),
        "darknet": ((0.5, 0.5, 160), (0.25, 1.0, 128), (0.35, 0.5, 224), (0.75, 0.5, 96)),
    }.items()
    for width, depth, size in variants
)
#: What is only learnt from: networks drawn at random, of these widths and sizes.
TAUGHT: Sequence[Which] = tuple(
    (RANDOM, width, 1.0, size)
    for width, size in (
        *((0.5, 96), (0.75, 104), (1.0, 112), (1.25, 128), (1.5, 136), (0.5, 152), (0.75, 160), (1.0, 176)),
        *((1.25, 192), (1.5, 200), (0.5, 208), (0.75, 224), (1.0, 240), (1.25, 256), (0.9, 224), (0.6, 224)),
        *((1.1, 192), (0.7, 192), (1.4, 160), (0.8, 128)),
    )
)
MODELS: Sequence[Which] = (*TESTED, *TAUGHT)
#: Runs of one visit take about so long, and there are at least so many of each kind at quick moments, if there are any.
_VISIT_S, _LEAST_QUICK = 0.7, 3


@dataclass(frozen=True)
class MeasuredModel:
    """One network. runs_ms: the middle of the runs of each visit; kernels_ms: likewise of each kernel, in the order of
    calls, in the visit in which all of them together took least; both at quick moments of the machine (see
    `evo_tvm.tune.timer`)."""

    family: str
    width: float
    depth: float
    size: int
    runs_ms: tuple[float, ...]
    kernels_ms: tuple[float, ...]

    @property
    def name(self) -> str:
        return f"{self.family}_w{self.width:g}_d{self.depth:g}_{self.size}"

    @property
    def latency_ms(self) -> float:
        """Of the quickest visit: there are some without a quick moment."""
        return min(self.runs_ms)


def network(family: str, width: float, depth: float, size: int) -> onnx.ModelProto:
    """One of `MODELS`, or another of these families."""
    return random_network(width, depth, size) if family == RANDOM else model(family, width, depth, size)


def build(which: Which, target: Target, num_threads: int = 1) -> Artifact:
    """The network, compiled as the analytic rule decides: what is predicted of it depends on no log."""
    return assemble(clean(network(*which)), target, num_threads, known=Knowledge()).artifact


def measure(
    artifacts: Mapping[Which, Artifact],
    visits: int,
    num_threads: int = 1,
    progress: Callable[[str], None] = lambda text: None,
    lock: str = "",
) -> list[MeasuredModel]:
    """Runs all models in turn, visit after visit, so that no phase of the machine hits one alone.

    lock: a file that is locked during each visit, for programs that measure side by side.
    """
    modules = {which: artifact.module(num_threads) for which, artifact in artifacts.items()}
    runs: dict[Which, list[float]] = {which: [] for which in modules}
    kernels: dict[Which, list[np.ndarray]] = {which: [] for which in modules}
    with _gate() as gate:
        for visit in range(visits):
            for which, module in modules.items():
                with locked(lock):
                    whole, times = gate.visit(module)
                runs[which].append(whole)
                kernels[which].append(times)
            progress(f"visit {visit + 1} of {visits}")
    return [
        MeasuredModel(*which, tuple(runs[which]), tuple(min(kernels[which], key=np.sum).tolist())) for which in modules
    ]


@dataclass(frozen=True)
class _Gate:
    """Lets runs count that begin and end at quick moments, with the clock as it is for kernels by themselves."""

    library: ctypes.CDLL
    reference: Reference

    def visit(self, module: Module) -> tuple[float, np.ndarray]:
        """(a run, each kernel), in milliseconds, each the middle one."""
        self.reference.begin(self.library, 0)
        module.profile(repeat=1)  # it warms up
        wholes = self._quick(lambda: np.array(module.benchmark(repeat=1, warmup=0, min_time_s=0.0).samples_ms))
        kernels = self._quick(lambda: np.array([k.min_ms for k in module.profile(repeat=1, warmup=0).kernels]))
        return float(wholes[0]), kernels

    def _quick(self, run: Callable[[], np.ndarray]) -> np.ndarray:
        """The middle of what `run` returns: at quick moments, or where there are hardly any the least."""
        quick, others, end = list[np.ndarray](), list[np.ndarray](), time.perf_counter() + _VISIT_S / 2
        while time.perf_counter() < end or not (quick or others):
            before = self.reference.wait(self.library, 0)
            taken = run()
            calm = is_quick(before) and is_quick(self.reference.slowness(self.library, 0))
            (quick if calm else others).append(taken)
        if len(quick) >= _LEAST_QUICK:
            return np.asarray(np.median(np.stack(quick), axis=0))
        return np.asarray(np.min(np.stack([*quick, *others]), axis=0))


@contextmanager
def _gate() -> Iterator[_Gate]:
    with tempfile.TemporaryDirectory(prefix="evo_tvm_models_") as folder:
        path = Path(folder) / "gate.so"
        link_library([], SOURCES, path, resolve("host").triple, None, EXPORTS)
        yield _Gate(loaded(path), Reference())


def kernels_of(which: MeasuredModel, target: Target, num_threads: int = 1) -> list[Kernel]:
    """All kernels of a model, as `build` compiles it, in the order of calls.

    Raises UsageError: it was measured when it had others.
    """
    imported = clean(network(which.family, which.width, which.depth, which.size))
    planned = plan(imported, target, num_threads, known=Knowledge())
    kernels = [kernel_of(planned.graph, group) for group in planned.kernels]
    if len(kernels) != len(which.kernels_ms):
        hint = "Remove it from models.json, and run scripts/measure_models again."
        raise UsageError("this model is compiled to other kernels than were measured", where=which.name, hint=hint)
    return kernels


def measure_call(target: Target) -> float:
    """What a run takes beside its kernels, in milliseconds: of a model with little to do."""
    module = assemble(clean(model("mobilenetv1", 0.25, 0.5, 32)), target, 1, known=Knowledge()).artifact.module(1)
    visits = [(module.benchmark(min_time_s=_VISIT_S).min_ms, module.profile(repeat=200)) for _ in range(3)]
    kernels = np.min([[kernel.min_ms for kernel in taken.kernels] for _, taken in visits], axis=0)
    return max(0.0, min(run for run, _ in visits) - float(kernels.sum()))


def merged(first: Sequence[MeasuredModel], second: Sequence[MeasuredModel]) -> list[MeasuredModel]:
    """Visits of both, and the kernels of that in which they took least."""
    found = {each.name: each for each in first}
    for each in second:
        before = found.get(each.name)
        if before is not None and len(before.kernels_ms) == len(each.kernels_ms):
            least = min(before.kernels_ms, each.kernels_ms, key=sum)
            each = replace(each, runs_ms=(*before.runs_ms, *each.runs_ms), kernels_ms=least)
        found[each.name] = each
    return list(found.values())


def save(measured: Sequence[MeasuredModel], path: Path, provenance: Mapping[str, Any]) -> None:
    """As JSON. Raises UsageError: the file cannot be written."""
    fields = {**provenance, "models": [asdict(each) for each in measured]}
    with write_whole(path) as file:
        file.write(json.dumps(fields, indent=1).encode() + b"\n")


def read(path: Path) -> list[MeasuredModel]:
    """What `save` wrote. Raises UsageError: it did not, or the file cannot be read."""
    try:
        found = json.loads(path.read_bytes())["models"]
        return [
            MeasuredModel(**{**each, "runs_ms": tuple(each["runs_ms"]), "kernels_ms": tuple(each["kernels_ms"])})
            for each in found
        ]
    except OSError as error:
        raise UsageError(f"cannot read measured models: {(error.strerror or '').lower()}", where=path) from None
    except (ValueError, KeyError, TypeError):
        raise UsageError("these are no measured models", where=path) from None
