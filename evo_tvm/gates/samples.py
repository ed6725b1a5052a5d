"""The samples that gates learn from and are judged by, with their labels where there are any."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evo_tvm.errors import InputError
from evo_tvm.gates.network import Array
from evo_tvm.quantize.accuracy_goal import LabelSource
from evo_tvm.quantize.accuracy_labels import read_labels
from evo_tvm.quantize.calibration_data import LABELS, CalibrationData, CalibrationSource, ModelInput, open_calibration
from evo_tvm.quantize.read_npz import members

#: Without data of their own, this part of the samples is held back.
HELD_BACK = 5


@dataclass(frozen=True)
class Samples:
    """data: one sample a feed. labels: int64 [N]; None: there are none. part: which of the samples these are."""

    data: CalibrationData
    labels: Array | None
    part: tuple[int, int] | None = None

    def __len__(self) -> int:
        return sum(1 for i in range(len(self.data)) if self._has(i))

    def __iter__(self) -> Iterator[tuple[dict[str, Array], int]]:
        """Feeds with their labels; -1 where there are none."""
        for i, feed in enumerate(self.data):
            if self._has(i):
                yield feed, -1 if self.labels is None else int(self.labels[i])

    def _has(self, number: int) -> bool:
        """part (n, k): every n-th sample from the last of n on, or, with k = 0, all others."""
        if self.part is None:
            return True
        every, held = self.part
        return (number % every == every - 1) == bool(held)


def open_samples(
    source: CalibrationSource, labels: LabelSource | None, inputs: Sequence[ModelInput], limit: int | None = None
) -> Samples:
    """The samples at `source`, as `open_calibration` takes them; labels: a file, an array, or those beside them.

    Raises InputError: data or labels that do not fit the model, or each other.
    """
    data = open_calibration(source, inputs, limit)
    shapes = [shape[0] for shape in data.shapes.values() if shape]
    if any(size != 1 for size in shapes):
        raise InputError("gates decide for one sample at a time", expected="samples of batch 1", got=shapes)
    if labels is not None:
        return Samples(data, read_labels(labels, data))
    path = Path(os.fspath(source)) if isinstance(source, str | os.PathLike) else None
    beside = path is not None and path.is_file() and any(member.name == LABELS for member in members(path))
    return Samples(data, read_labels(path, data) if beside and path is not None and LABELS not in data.shapes else None)


def split(samples: Samples) -> tuple[Samples, Samples]:
    """Those to learn from, and every fifth, which is held back."""
    return Samples(samples.data, samples.labels, (HELD_BACK, 0)), Samples(samples.data, samples.labels, (HELD_BACK, 1))


def check_classes(samples: Samples, classes: int, where: str) -> None:
    """Raises InputError: a label beyond the model's classes."""
    if samples.labels is not None and int(np.max(samples.labels)) >= classes:
        raise InputError(
            "a label is beyond the classes of the model",
            where=where,
            expected=f"0 to {classes - 1}",
            got=int(np.max(samples.labels)),
        )
