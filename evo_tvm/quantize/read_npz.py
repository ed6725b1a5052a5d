"""Reads the arrays of an `.npz` one sample after another: never is more than a sample of each in memory."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from evo_tvm.errors import InputError
from evo_tvm.quantize.params import Array

_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Member:
    """An array in an `.npz`: its samples lie along the first axis. `dtype` as numpy has it."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    def samples(self, indices: Sequence[int]) -> Iterator[Array]:
        """The samples at `indices`, which ascend.

        Raises InputError: the file ends too early.
        """
        size_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.name}.npy") as file:
                _read_header(file)
                at = 0
                for index in indices:
                    _skip(file, (index - at) * size_bytes)
                    data = file.read(size_bytes)
                    if len(data) < size_bytes:
                        raise EOFError
                    at = index + 1
                    yield np.frombuffer(data, self.dtype).reshape(self.shape[1:])
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise _unreadable(self.path) from error


def members(path: Path) -> list[Member]:
    """The arrays of the file at `path`, in its order; nothing is unpickled.

    Raises InputError: no such file, not an `.npz`, or an array that cannot be read in order.
    """
    found = []
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.namelist():
                with archive.open(entry) as file:
                    shape, fortran, dtype = _read_header(file)
                name = entry.removesuffix(".npy")
                if dtype.hasobject:
                    raise InputError("holds Python objects, not numbers", where=f"{path}, array '{name}'")
                if fortran and len(shape) > 1:
                    raise InputError(
                        "is stored column by column, so that its samples cannot be read one by one",
                        where=f"{path}, array '{name}'",
                        hint="Save it with numpy.savez(path, NAME=numpy.ascontiguousarray(array)).",
                    )
                found.append(Member(path, name, shape, dtype))
    except FileNotFoundError:
        raise InputError("no such file", where=path, hint="Check the path of the calibration data.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path) from error
    return found


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def _skip(file: IO[bytes], size_bytes: int) -> None:
    while size_bytes > 0 and (read := len(file.read(min(size_bytes, _READ_BYTES)))):
        size_bytes -= read


def _unreadable(path: Path) -> InputError:
    return InputError(
        "cannot be read as .npz",
        where=path,
        hint="Write it with numpy.savez(path, NAME=array): one array for each input, samples along the first axis.",
    )
