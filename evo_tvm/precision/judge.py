"""What forms of one model take: measured where this machine runs them, predicted where it does not."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from evo_tvm.bench.inputs import random_inputs
from evo_tvm.bench.timing import SETTLE_S, measure
from evo_tvm.pipeline import Assembled, Planned
from evo_tvm.quantize.measure_error import sqnr_db
from evo_tvm.runtime import cpu
from evo_tvm.runtime.module import Module
from evo_tvm.spec import TensorSpec
from evo_tvm.target import Target

Feed = Mapping[str, npt.NDArray[Any]]

#: Kernels are timed over so many turns of so many runs, one form after the other.
_PROFILE_TURNS, _PROFILE_RUNS = 5, 10
#: Whole models likewise, over turns of so many milliseconds.
_TURNS, _TURN_MS = 9, 100.0
#: Random inputs that errors are taken over where there are no samples.
_RANDOM_INPUTS = 16
#: Converting a number moves it once as a float, beside its byte.
_CONVERTED_BYTES = 5


class Judge(Protocol):
    """Says what each form takes: an `Assembled`, or a `Planned`. All forms have the same inputs and outputs."""

    #: "measured", "predicted" or "estimated".
    source: str

    def layers_ms(self, forms: Mapping[str, Any], layers: Sequence[str]) -> dict[str, dict[str, float]]:
        """Form -> layer -> milliseconds of its kernel and of those, of no layer, that run between it and the last one.

        A layer is not there where it is part of another one's kernel.
        """
        ...

    def wholes_ms(self, forms: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
        """Form -> milliseconds of a run, the shortest of each turn."""
        ...

    def element_ms(self) -> float:
        """Of converting one number."""
        ...

    def outputs_db(self, forms: Mapping[str, Any], reference: str) -> dict[str, float]:
        """Form -> SQNR in dB against `reference`, of the worst output; nothing where they cannot run."""
        ...


def runs_here(target: Target) -> bool:
    """Whether this machine runs the target's code."""
    return target.arch == cpu.arch() and set(target.required_features) <= set(cpu.features())


class Measurements:
    """Times on this machine, forms in turn so that what else it does meets all of them; the least of all turns."""

    source = "measured"

    def __init__(self, num_threads: int, samples: Sequence[Feed], inputs: Sequence[TensorSpec] = ()) -> None:
        """samples: inputs to take errors over; where there are none, random ones for `inputs`."""
        self._samples = samples or [random_inputs(inputs, seed) for seed in range(_RANDOM_INPUTS)]
        self._num_threads = num_threads
        self._modules: dict[int, tuple[Assembled, Module]] = {}
        self._gbytes_per_s: float | None = None

    def layers_ms(self, forms: Mapping[str, Assembled], layers: Sequence[str]) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {name: {} for name in forms}
        for _ in range(_PROFILE_TURNS):
            for name, form in forms.items():
                time.sleep(SETTLE_S)
                profile = self._module(form).profile(repeat=_PROFILE_RUNS, inputs=self._samples[0])
                self._gbytes_per_s = profile.memory_gbytes_per_s
                turn = by_layer([(next(iter(k.layers), ""), k.min_ms) for k in profile.kernels], layers)
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


class Predictions:
    """What forms are predicted to take, before they are compiled: by the target's predictor, and by the analytic rules
    that choose algorithms where it knows nothing. Each form is a `Planned`.

    source: "predicted", or "estimated" where rules alone speak.
    """

    def __init__(self, target: Target, forms: Iterable[Planned]) -> None:
        self._target = target
        learnt = any(found.source == "predictor" for form in forms for found in form.predictions)
        self.source = "predicted" if learnt else "estimated"

    def layers_ms(self, forms: Mapping[str, Planned], layers: Sequence[str]) -> dict[str, dict[str, float]]:
        return {name: by_layer(_predicted(form), layers) for name, form in forms.items()}

    def wholes_ms(self, forms: Mapping[str, Planned]) -> dict[str, tuple[float, ...]]:
        return {name: (sum(found.value for found in form.predictions),) for name, form in forms.items()}

    def element_ms(self) -> float:
        per_cycle = self._target.memory_bytes_per_cycle
        return _CONVERTED_BYTES / per_cycle / self._target.clock_hz * 1e3

    def outputs_db(self, forms: Mapping[str, Planned], reference: str) -> dict[str, float]:
        return {}


def _predicted(form: Planned) -> list[tuple[str, float]]:
    """(layer, milliseconds) of each kernel, in order."""
    return [(group.name, found.value) for group, found in zip(form.kernels, form.predictions, strict=True)]


def by_layer(kernels: Iterable[tuple[str, float]], layers: Collection[str]) -> dict[str, float]:
    """Layer -> milliseconds of its kernels and of those, of no layer, that run between them and the last one. kernels:
    (layer, milliseconds) of each, in order."""
    found: dict[str, float] = {}
    before_ms = 0.0
    for layer, ms in kernels:
        before_ms += ms
        if layer in layers:
            found[layer] = found.get(layer, 0.0) + before_ms
            before_ms = 0.0
    return found
