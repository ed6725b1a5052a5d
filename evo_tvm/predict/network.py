"""A small neural network over the features of a kernel, in numpy: what trees see as steps, it sees as a smooth surface.

Three hidden layers with SiLU (Elfwing et al., "Sigmoid-weighted linear units", 2018), trained by AdamW (Loshchilov and
Hutter, "Decoupled weight decay regularization", ICLR 2019) with one cycle of the learning rate.
"""

from __future__ import annotations

import base64
import binascii
import io
import itertools
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_WIDTH, _HIDDEN = 256, 3
_EPOCHS, _BATCH = 40, 512
#: Of few examples an epoch has so many batches, but none of fewer examples.
_BATCHES, _LEAST_BATCH = 20, 16
_RATE, _DECAY = 3e-3, 1e-2
#: Of a cycle: the share in which the rate rises, and by how much less it begins and ends.
_RISE, _START, _END = 0.1, 25.0, 1e4
_BETAS, _EPSILON = (0.9, 0.999), 1e-8
#: Errors beyond this count by their size, not by its square.
_SLOPE = 0.03
#: The standard deviation of a feature that does not change, but for rounding.
_CONSTANT = 1e-4
#: Standard deviations beyond which a feature is cut off: nothing is extrapolated far.
_FAR = 5.0


@dataclass(frozen=True)
class Network:
    """weights: of each layer (inputs, outputs); biases: (outputs). Rows are shifted by `mean` and divided by
    `deviation` first; what comes out is multiplied by `scale`, and `level` is added."""

    mean: np.ndarray
    deviation: np.ndarray
    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    scale: float
    level: float

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Of (examples, features): (examples), float64."""
        x = _standard(rows, self.mean, self.deviation)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = _silu(x @ weight + bias)[0]
        found: np.ndarray = (x @ self.weights[-1] + self.biases[-1])[:, 0].astype(np.float64)
        return found * self.scale + self.level


def fit_network(rows: np.ndarray, labels: np.ndarray, weights: np.ndarray, seed: int, epochs: int = _EPOCHS) -> Network:
    """Learns `labels` (examples) of `rows` (examples, features); weights: what each counts. A feature that is the same
    in all of them never counts, whatever it is elsewhere."""
    rng = np.random.default_rng(seed)
    mean, deviation = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    deviation = np.where(deviation > _CONSTANT, deviation, np.inf)  # what never changed teaches nothing
    x = _standard(rows, mean, deviation)
    level, scale = float(labels.mean()), float(labels.std()) or 1.0
    y, counts = ((labels - level) / scale).astype(np.float32), (weights / weights.mean()).astype(np.float32)
    sizes = [rows.shape[1], *[_WIDTH] * _HIDDEN, 1]
    parameters = [*_first_parameters(sizes, rng)]
    batch = min(_BATCH, max(_LEAST_BATCH, len(x) // _BATCHES), len(x))
    optimizer = _AdamW(parameters, epochs * (len(x) // batch))
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for begin in range(0, len(x) - batch + 1, batch):
            some = order[begin : begin + batch]
            optimizer.step(_gradients(parameters, x[some], y[some], counts[some], _SLOPE / scale))
    return Network(mean, deviation, tuple(parameters[::2]), tuple(parameters[1::2]), scale, level)


def network_text(network: Network) -> str:
    """As base64 of compressed arrays of half precision."""
    arrays = {"mean": network.mean, "deviation": network.deviation, "ends": np.array([network.scale, network.level])}
    for number, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        arrays |= {f"weight{number}": weight.astype(np.float16), f"bias{number}": bias.astype(np.float16)}
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return base64.b64encode(zlib.compress(file.getvalue(), 9)).decode()


def load_network(text: str) -> Network:
    """What `network_text` wrote. Raises ValueError: it did not."""
    try:
        with np.load(io.BytesIO(zlib.decompress(base64.b64decode(text))), allow_pickle=False) as found:
            count = sum(name.startswith("weight") for name in found.files)
            weights = tuple(found[f"weight{number}"].astype(np.float32) for number in range(count))
            biases = tuple(found[f"bias{number}"].astype(np.float32) for number in range(count))
            scale, level = found["ends"].tolist()
            made = Network(found["mean"], found["deviation"], weights, biases, scale, level)
    except (zlib.error, zipfile.BadZipFile, binascii.Error, KeyError, TypeError, EOFError, OSError) as error:
        raise ValueError(f"no network: {error}") from None
    ends = [len(made.mean), *(len(bias) for bias in biases)]
    if not weights or ends[-1] != 1 or [weight.shape for weight in weights] != [*itertools.pairwise(ends)]:
        raise ValueError("a network whose layers do not fit")
    return made


def _standard(rows: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.clip((rows - mean) / deviation, -_FAR, _FAR).astype(np.float32)
    return found


def _first_parameters(sizes: list[int], rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Weights and biases in turn, uniform within 1 / sqrt(inputs)."""
    for inputs, outputs in itertools.pairwise(sizes):
        for shape in ((inputs, outputs), (outputs,)):
            yield rng.uniform(-1, 1, shape).astype(np.float32) / np.float32(np.sqrt(inputs))


def _silu(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(x * sigmoid(x), sigmoid(x))."""
    sigmoid = 1 / (1 + np.exp(-x))
    return x * sigmoid, sigmoid


def _gradients(
    parameters: list[np.ndarray], x: np.ndarray, y: np.ndarray, counts: np.ndarray, slope: float
) -> list[np.ndarray]:
    """Of the mean over a batch of pseudo-Huber errors, in the order of the parameters."""
    inputs, sums, gates = [x], list[np.ndarray](), list[np.ndarray]()
    weights, biases = parameters[::2], parameters[1::2]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        sums.append(inputs[-1] @ weight + bias)
        active, gate = _silu(sums[-1])
        inputs.append(active)
        gates.append(gate)
    error = (inputs[-1] @ weights[-1] + biases[-1])[:, 0] - y
    back = (counts * error / np.sqrt(slope**2 + error**2) / len(x))[:, None].astype(np.float32)
    found: list[np.ndarray] = []
    for number in reversed(range(len(weights))):
        found = [inputs[number].T @ back, back.sum(axis=0), *found]
        if number:
            total, gate = sums[number - 1], gates[number - 1]
            back = (back @ weights[number].T) * (gate * (1 + total * (1 - gate)))
    return found


class _AdamW:
    """Changes parameters in place."""

    def __init__(self, parameters: list[np.ndarray], steps: int) -> None:
        self._parameters, self._steps, self._done = parameters, max(1, steps), 0
        self._means = [np.zeros_like(p) for p in parameters]
        self._squares = [np.zeros_like(p) for p in parameters]

    def step(self, gradients: list[np.ndarray]) -> None:
        rate = self._rate()
        self._done += 1
        first, second = (1 - beta**self._done for beta in _BETAS)
        for parameter, gradient, mean, square in zip(
            self._parameters, gradients, self._means, self._squares, strict=True
        ):
            mean += (1 - _BETAS[0]) * (gradient - mean)
            square += (1 - _BETAS[1]) * (gradient * gradient - square)
            parameter *= np.float32(1 - rate * _DECAY)
            parameter -= np.float32(rate / first) * mean / (np.sqrt(square / np.float32(second)) + _EPSILON)

    def _rate(self) -> float:
        """One cycle (Smith and Topin, "Super-convergence", 2019), along cosines."""
        at, top = self._done / self._steps, _RATE
        low, share = (_RATE / _START, at / _RISE) if at < _RISE else (_RATE / _END, 1 - (at - _RISE) / (1 - _RISE))
        return float(low + (top - low) * (1 - np.cos(np.pi * share)) / 2)
