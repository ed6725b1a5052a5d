"""Calibration data: samples from a file, a folder or Python, one run of the model after another."""

from __future__ import annotations

import copy
import difflib
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from evo_tvm.errors import InputError, UsageError
from evo_tvm.quantize.calibration_images import ENDINGS, Preprocessing
from evo_tvm.quantize.params import Array
from evo_tvm.quantize.read_npz import Member, members

#: What `open_calibration` takes: a path, or an iterable of arrays (one input) or of dicts of arrays by input name.
CalibrationSource: TypeAlias = "str | os.PathLike[str] | Iterable[Array | Mapping[str, Array]]"
Feed: TypeAlias = "dict[str, Array]"
#: An array of this name in an `.npz` has the labels of its samples, unless an input of the model has this name.
LABELS = "labels"


@dataclass(frozen=True)
class ModelInput:
    """An input of the model. shape: None for a dimension that the model leaves free. dtype as numpy spells it."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype}[{'x'.join('?' if size is None else str(size) for size in self.shape)}]"


class _Samples(Protocol):
    """Where samples come from: `read` gives those at ascending indices, by input name, as often as it is called."""

    where: str

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> Iterator[Mapping[str, Array]]: ...


class CalibrationData:
    """Feeds (input name -> array, batch included), checked, one at a time; can be iterated again and again."""

    def __init__(self, source: _Samples, inputs: Sequence[ModelInput], limit: int | None) -> None:
        self._source, self._inputs = source, {spec.name: spec for spec in inputs}
        if not len(source):
            raise InputError("there are no calibration samples", where=source.where, hint="Give at least one.")
        self._indices = _spread(range(len(source)), limit)
        first = next(iter(source.read(self._indices[:1])))
        whole, part = self._sample(first, 0)
        self._batch = 1 if whole else next((s.shape[0] for s in inputs if s.name in part and s.shape[0]), 1)
        if len(self._indices) < self._batch:
            raise InputError(
                "there are too few samples for one batch",
                where=source.where,
                expected=self._batch,
                got=len(self._indices),
            )
        self.shapes = {name: array.shape for name, array in next(iter(self)).items()}

    def __len__(self) -> int:
        """How many feeds there are."""
        return len(self._indices) // self._batch

    def __iter__(self) -> Iterator[Feed]:
        """The feeds. Raises InputError: a sample with a wrong name, shape or dtype, or that is not finite."""
        samples = enumerate(self._source.read(self.chosen))
        while group := list(itertools.islice(samples, self._batch)):
            parts = [self._sample(sample, self._indices[number]) for number, sample in group]
            feed = parts[0][1]
            if self._batch > 1:
                feed = {name: np.concatenate([part[name] for _, part in parts]) for name in self._inputs}
            self._check_shapes(feed, self._indices[group[0][0]])
            yield feed

    @property
    def chosen(self) -> list[int]:
        """Which samples of the source are used, from 0, in order."""
        return self._indices[: len(self) * self._batch]

    @property
    def available(self) -> int:
        """How many samples the source has."""
        return len(self._source)

    def few(self, count: int) -> CalibrationData:
        """The same data, about `count` samples of it."""
        part = copy.copy(self)
        part._indices = _spread(self._indices, max(count, self._batch))
        return part

    def _sample(self, sample: Mapping[str, Array], index: int) -> tuple[bool, Feed]:
        """One sample with a batch axis, and whether it had one; its names, dtypes, values and ranks are checked."""
        where = f"{self._source.where}, sample {index}"
        self._check_names(sample, where)
        feed, whole = {}, False
        for name, spec in self._inputs.items():
            array = _as_type(np.asarray(sample[name]), spec, f"{where}, input '{name}'")
            whole = array.ndim == len(spec.shape)
            feed[name] = array if whole else array[None]
            if feed[name].ndim != len(spec.shape):
                raise _wrong_shape(array.shape, spec, f"{where}, input '{name}'")
        return whole, feed

    def _check_names(self, sample: Mapping[str, Array], where: str) -> None:
        wanted = list(self._inputs)
        for name in sample:
            if name not in self._inputs:
                close = difflib.get_close_matches(name, wanted, n=1)
                hint = f"Did you mean '{close[0]}'?" if close else f"The inputs are {', '.join(wanted)}."
                raise InputError(f"the model has no input '{name}'", where=where, hint=hint)
        missing = [name for name in wanted if name not in sample]
        if missing:
            raise InputError(
                f"no data for input '{missing[0]}'", where=where, hint=f"It takes {self._inputs[missing[0]]}."
            )

    def _check_shapes(self, feed: Feed, index: int) -> None:
        expected = getattr(self, "shapes", None)
        for name, spec in self._inputs.items():
            shape = feed[name].shape
            where = f"{self._source.where}, sample {index}, input '{name}'"
            if any(size not in (None, got) for size, got in zip(spec.shape, shape, strict=True)):
                raise _wrong_shape(shape, spec, where)
            if expected is not None and shape != expected[name]:
                raise InputError(
                    "samples differ in shape",
                    where=where,
                    expected=_text(expected[name]),
                    got=_text(shape),
                    hint="Bring all samples to one shape.",
                )


def open_calibration(
    source: CalibrationSource,
    inputs: Sequence[ModelInput],
    samples: int | None = None,
    preprocessing: Preprocessing | None = None,
) -> CalibrationData:
    """The calibration data at `source` for a model with these `inputs`.

    source: an `.npz` with an array for each input, samples along the first axis (any one array where the model has one
    input), and perhaps `labels`; a folder of `.npy`, a sample each, or of PNG and JPEG images; or an iterable. samples:
    at most so many, spread evenly. preprocessing: of images. A sample may have a batch axis or not.

    Raises InputError: no such file, nothing in it, or data that do not fit. UsageError: samples below 1.
    """
    if samples is not None and samples < 1:
        raise UsageError("there must be a sample", where="samples", expected="at least 1", got=samples)
    if not isinstance(source, str | os.PathLike):
        return CalibrationData(_Spooled(source, inputs, samples), inputs, samples)
    path = Path(source)
    if path.is_dir():
        return CalibrationData(_Folder(path, inputs, preprocessing or Preprocessing()), inputs, samples)
    return CalibrationData(_Npz(path, inputs), inputs, samples)


class _Npz:
    """The arrays of an `.npz`."""

    def __init__(self, path: Path, inputs: Sequence[ModelInput]) -> None:
        self.where = str(path)
        taken = {spec.name for spec in inputs}
        found = [member for member in members(path) if member.name != LABELS or LABELS in taken]
        self._members: dict[str, Member] = {member.name: member for member in found}
        if len(inputs) == 1 and len(found) == 1:
            self._members = {inputs[0].name: found[0]}
        for member in found:
            if not member.shape:
                raise InputError("is one number, not samples", where=f"{path}, array '{member.name}'")
        counts = {member.shape[0] for member in found}
        if len(counts) > 1:
            text = ", ".join(f"{member.name} {member.shape[0]}" for member in found)
            raise InputError(f"the arrays have different numbers of samples: {text}", where=path)
        self._count = counts.pop() if counts else 0

    def __len__(self) -> int:
        return self._count

    def read(self, indices: Sequence[int]) -> Iterator[Mapping[str, Array]]:
        names = list(self._members)
        streams = [member.samples(indices) for member in self._members.values()]
        for arrays in zip(*streams, strict=True):
            yield dict(zip(names, arrays, strict=True))


class _Folder:
    """The files of a folder, in the order of their names: `.npy` or images."""

    def __init__(self, path: Path, inputs: Sequence[ModelInput], preprocessing: Preprocessing) -> None:
        self.where = str(path)
        files = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in (".npy", *ENDINGS))
        self._files, self._preprocessing = files, preprocessing
        if not files:
            raise InputError(
                "the folder has no calibration data", where=path, hint="Put .npy files, or .png or .jpg images into it."
            )
        if len({entry.suffix == ".npy" for entry in files}) > 1:
            raise InputError("the folder has both arrays and images", where=path, hint="Keep one kind.")
        if len(inputs) != 1:
            names = ", ".join(spec.name for spec in inputs)
            raise InputError("a folder fits a model of one input", where=path, hint=f"Use an .npz with {names}.")
        self._input = inputs[0]

    def __len__(self) -> int:
        return len(self._files)

    def read(self, indices: Sequence[int]) -> Iterator[Mapping[str, Array]]:
        for index in indices:
            file = self._files[index]
            if file.suffix != ".npy":
                yield {self._input.name: self._preprocessing.read(file, self._input.shape)}
                continue
            try:
                yield {self._input.name: np.load(file, allow_pickle=False)}
            except (OSError, ValueError, EOFError) as error:
                raise InputError("cannot be read as .npy", where=file, hint="Write it with numpy.save.") from error


class _Spooled:
    """What an iterable gives, which may do so but once: kept on the disk, as calibration reads its data repeatedly."""

    def __init__(self, source: Iterable[Any], inputs: Sequence[ModelInput], limit: int | None) -> None:
        self.where = "the calibration data"
        self._folder = tempfile.TemporaryDirectory(prefix="evo_tvm_calibration_")
        self._names: list[tuple[str, ...]] = []
        for item in itertools.islice(source, limit):
            if not isinstance(item, Mapping) and len(inputs) != 1:
                names = ", ".join(spec.name for spec in inputs)
                raise InputError("one array for several inputs", where=self.where, hint=f"Give dicts with {names}.")
            arrays = item if isinstance(item, Mapping) else {inputs[0].name: item}
            self._save({str(name): np.asarray(array) for name, array in arrays.items()})

    def _save(self, arrays: Mapping[str, Array]) -> None:
        for name, array in arrays.items():
            if array.dtype.hasobject:
                where = f"{self.where}, sample {len(self)}, input '{name}'"
                raise InputError("not an array of numbers", where=where)
        with open(os.path.join(self._folder.name, f"{len(self)}.npz"), "wb") as file:
            np.savez(file, *arrays.values(), allow_pickle=False)
        self._names.append(tuple(arrays))

    def __len__(self) -> int:
        return len(self._names)

    def read(self, indices: Sequence[int]) -> Iterator[Mapping[str, Array]]:
        for index in indices:
            with np.load(os.path.join(self._folder.name, f"{index}.npz"), allow_pickle=False) as found:
                yield {name: found[f"arr_{number}"] for number, name in enumerate(self._names[index])}


def _spread(indices: Sequence[int], count: int | None) -> list[int]:
    """At most `count` of `indices`, evenly: the samples in a file are often sorted."""
    count = len(indices) if count is None else min(count, len(indices))
    return [indices[number * len(indices) // count] for number in range(count)]


def _as_type(array: Array, spec: ModelInput, where: str) -> Array:
    """`array` in the dtype of the input: a float may be of another width; nothing else may differ."""
    wanted = np.dtype(spec.dtype)
    if array.dtype != wanted and not (array.dtype.kind == wanted.kind == "f"):
        hint = "Scale and normalise it as the model expects it." if array.dtype.kind in "iu" else None
        raise InputError("wrong dtype", where=where, expected=wanted, got=array.dtype, hint=hint)
    array = array.astype(wanted, copy=False)
    if wanted.kind == "f" and not np.isfinite(array).all():
        kind = "NaN" if np.isnan(array).any() else "infinity"
        raise InputError(f"{kind} among the values", where=where, hint="Leave this sample out, or repair it.")
    return array


def _wrong_shape(shape: Sequence[int], spec: ModelInput, where: str) -> InputError:
    return InputError(
        "wrong shape",
        where=where,
        expected=str(spec),
        got=_text(shape),
        hint="A sample has the shape of the model's input, with the batch axis or without.",
    )


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
