"""Arrays from and to `.npz` and `.npy` files."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from evo_tvm.bench.inputs import Array
from evo_tvm.errors import InputError
from evo_tvm.files import write_whole
from evo_tvm.spec import TensorSpec


def load_inputs(path: Path, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Arrays by name from an `.npz`, or the only input of the model from an `.npy`. Nothing is unpickled.

    Names, shapes and dtypes are left for the module to check.

    Raises
    ------
    InputError: no such file, not such a file, or one array for several inputs.
    """
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            if len(specs) != 1:
                raise InputError(
                    "one array for several inputs",
                    where=path,
                    hint=f"Use an .npz with the arrays {', '.join(spec.name for spec in specs)}.",
                )
            return {specs[0].name: found}
        with found:
            return {name: found[name] for name in found.files}
    except FileNotFoundError as error:
        raise InputError("no such file", where=path, hint="Check the path that --input was given.") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            "cannot be read as .npz or .npy",
            where=path,
            hint="Write it with numpy.savez(path, NAME=array) and numeric dtypes.",
        ) from error


def save_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays by name as an `.npz` that appears whole or not at all.

    Raises
    ------
    UsageError: the folder does not take it.
    """
    with write_whole(path) as file:
        np.savez(file, allow_pickle=False, **arrays)
