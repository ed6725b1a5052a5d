"""What forms of one model take: measured where this machine runs them, estimated where it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.bench.inputs import random_inputs
from evo_tvm.bench.timing import measure
from evo_tvm.errors import ArtifactError
from evo_tvm.pipeline import Assembled
from evo_tvm.quantize.measure_error import sqnr_db
from evo_tvm.runtime.module import Module, check_cpu
from evo_tvm.target import Target

Feed = Mapping[str, npt.NDArray[Any]]

#: Kernels are timed over so many turns of so many runs, one form after the other.
_PROFILE_TURNS, _PROFILE_RUNS = 5, 10
#: Whole models likewise, over turns of so many milliseconds.
_TURNS, _TURN_MS = 9, 100.0
#: Random inputs that errors are taken over where there are no samples.
_RANDOM_INPUTS = 4
#: Converting a number moves it once as a float, beside its byte.
_CONVERTED_BYTES = 5


class Judge(Protocol):
    """Says what each form takes. All forms have the same inputs and outputs."""

    #: "measured" or "estimated".
    source: str

    def layers_ms(self, forms: Mapping[str, Assembled]) -> dict[str, dict[str, float]]:
        """Form -> the layer that a kernel is named after -> milliseconds of that kernel."""
        ...

    def wholes_ms(self, forms: Mapping[str, Assembled]) -> dict[str, tuple[float, ...]]:
        """Form -> milliseconds of a run, the shortest of each turn."""
        ...

    def element_ms(self) -> float:
        """Of converting one number."""
        ...

    def outputs_db(self, forms: Mapping[str, Assembled], reference: str) -> dict[str, float]:
        """Form -> SQNR in dB against `reference`, of the worst output; nothing where they cannot run."""
        ...


def judge_for(form: Assembled, target: Target, num_threads: int, samples: Sequence[Feed] = ()) -> Judge:
    """Measurements where this machine can run `form`, else estimates. samples: inputs to take errors over."""
    try:
        check_cpu(form.artifact.manifest, "")
    except ArtifactError:
        return Estimates(target, num_threads)
    inputs = form.artifact.manifest.inputs
    return Measurements(num_threads, samples or [random_inputs(inputs, seed) for seed in range(_RANDOM_INPUTS)])


class Measurements:
    """Times on this machine, forms in turn so that what else it does meets all of them; the least of all turns."""

    source = "measured"

    def __init__(self, num_threads: int, samples: Sequence[Feed]) -> None:
        self._num_threads, self._samples = num_threads, samples
        self._modules: dict[int, tuple[Assembled, Module]] = {}
        self._gbytes_per_s: float | None = None

    def layers_ms(self, forms: Mapping[str, Assembled]) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {name: {} for name in forms}
        for _ in range(_PROFILE_TURNS):
            for name, form in forms.items():
                profile = self._module(form).profile(repeat=_PROFILE_RUNS, inputs=self._samples[0])
                self._gbytes_per_s = profile.memory_gbytes_per_s
                turn: dict[str, float] = {}
                for kernel in profile.kernels:
                    for layer in kernel.layers[:1]:
                        turn[layer] = turn.get(layer, 0.0) + kernel.min_ms
                found[name] = {layer: min(ms, found[name].get(layer, ms)) for layer, ms in turn.items()}
        return found

    def wholes_ms(self, forms: Mapping[str, Assembled]) -> dict[str, tuple[float, ...]]:
        runs = {name: self._run(form) for name, form in forms.items()}
        return {name: timing.minima_ms for name, timing in measure(runs, rounds=_TURNS, turn_ms=_TURN_MS).items()}

    def element_ms(self) -> float:
        return _CONVERTED_BYTES / self._gbytes_per_s / 1e6 if self._gbytes_per_s else 0.0

    def outputs_db(self, forms: Mapping[str, Assembled], reference: str) -> dict[str, float]:
        signal: dict[str, float] = {}
        noise: dict[str, dict[str, float]] = {name: {} for name in forms}
        for sample in self._samples:
            exact = self._module(forms[reference]).run(sample)
            for output, array in exact.items():
                signal[output] = signal.get(output, 0.0) + float(np.square(array, dtype=np.float64).sum())
            for name, form in forms.items():
                for output, array in self._module(form).run(sample).items():
                    error = np.subtract(array, exact[output], dtype=np.float64)
                    noise[name][output] = noise[name].get(output, 0.0) + float(np.square(error).sum())
        return {name: min(sqnr_db(signal[o], n) for o, n in found.items()) for name, found in noise.items()}

    def _module(self, form: Assembled) -> Module:
        if id(form) not in self._modules:
            self._modules[id(form)] = form, form.artifact.module(self._num_threads)
        return self._modules[id(form)][1]

    def _run(self, form: Assembled) -> Any:
        module, sample = self._module(form), self._samples[0]
        return lambda: module.run(sample)


class Estimates:
    """The analytic rules that choose algorithms where nothing was measured: arithmetic and memory of the layers."""

    source = "estimated"

    def __init__(self, target: Target, num_threads: int) -> None:
        self._target, self._num_threads = target, num_threads

    def layers_ms(self, forms: Mapping[str, Assembled]) -> dict[str, dict[str, float]]:
        return {name: self._layers(form) for name, form in forms.items()}

    def wholes_ms(self, forms: Mapping[str, Assembled]) -> dict[str, tuple[float, ...]]:
        return {name: (sum(self._layers(form).values()),) for name, form in forms.items()}

    def element_ms(self) -> float:
        per_cycle = self._target.memory_bytes_per_cycle
        return _CONVERTED_BYTES / per_cycle / self._target.clock_hz * 1e3

    def outputs_db(self, forms: Mapping[str, Assembled], reference: str) -> dict[str, float]:
        return {}

    def _layers(self, form: Assembled) -> dict[str, float]:
        found = {}
        for explained in form.explained:
            workload, decision = explained.workload, explained.decision
            algorithm = ALGORITHMS[workload.operator][decision.algorithm]
            cycles = algorithm.cycles(workload, decision.config, self._target, self._num_threads)
            cycles += algorithm.border_cycles(workload, decision.config, self._target)
            found[explained.layer] = cycles / self._target.clock_hz * 1e3
        return found
