"""Reads the labels of samples, and checks that there is one for each."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from evo_tvm.errors import InputError
from evo_tvm.quantize.accuracy_goal import AccuracyGoal, LabelSource
from evo_tvm.quantize.calibration_data import LABELS, CalibrationData, CalibrationSource
from evo_tvm.quantize.params import Array
from evo_tvm.quantize.read_npz import members

_UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


def find_labels(goal: AccuracyGoal, source: CalibrationSource, data: CalibrationData) -> Array | None:
    """The labels of the samples of `data`, opened from `source`: those that the goal gives, else those beside them.

    int64[samples]; None where there are none, or the goal's metric needs none. Raises InputError, as `read_labels`.
    """
    if goal.labels is not None:
        return read_labels(goal.labels, data)
    is_file = isinstance(source, str | os.PathLike) and Path(source).is_file()
    if not is_file or LABELS in data.shapes or goal.metric not in (None, "accuracy"):
        return None
    path = Path(str(source))
    return read_labels(path, data) if any(member.name == LABELS for member in members(path)) else None


def read_labels(source: LabelSource, data: CalibrationData) -> Array:
    """The labels of the samples of `data` that are used: int64[samples].

    Raises InputError: no such file, not integers from 0 on, or not one for each sample.
    """
    path = Path(source) if isinstance(source, str | os.PathLike) else None
    where = str(path) if path is not None else "labels"
    labels = _read(path) if path is not None else np.asarray(source)
    if labels.dtype.kind not in "iu":
        raise InputError("labels are not integers", where=where, expected="class numbers from 0 on", got=labels.dtype)
    if labels.ndim == 0 or len(labels) != data.available:
        raise InputError(
            "not one label for each sample",
            where=where,
            expected=data.available,
            got=len(labels) if labels.ndim else "one number",
            hint="Labels stand in the order of the samples; those of a folder in the order of its file names.",
        )
    chosen = np.asarray(labels[data.chosen].reshape(-1), np.int64)
    if chosen.min() < 0:
        raise InputError("a label is negative", where=where, expected="class numbers from 0 on", got=int(chosen.min()))
    return chosen


def _read(path: Path) -> Array:
    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError("no such file", where=path, hint="Check the path of the labels.") from None
    except _UNREADABLE as error:
        raise InputError("cannot be read as .npy or .npz", where=path, hint="Write it with numpy.save.") from error
    if isinstance(found, np.ndarray):
        return found
    with found:
        names = list(found.files)
        name = LABELS if LABELS in names else names[0] if len(names) == 1 else None
        if name is None:
            raise InputError(
                f"has no array '{LABELS}'", where=path, hint=f"It has {', '.join(names) or 'none'}: rename one."
            )
        try:
            return np.asarray(found[name])
        except _UNREADABLE as error:
            raise InputError("cannot be read", where=f"{path}, array '{name}'") from error
