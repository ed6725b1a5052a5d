"""`.hooks` files: trained hooks and their curve, as a zip of a manifest and numpy arrays. Nothing is pickled."""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from evo_tvm.errors import InputError
from evo_tvm.files import write_whole
from evo_tvm.gates.hook import KINDS, Hook
from evo_tvm.gates.network import Array

FORMAT = 1
_MANIFEST = "hooks.json"
#: No array of a hook is as large: a longer one is no hook's.
_LARGEST_BYTES = 64 << 20
_BROKEN = (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class SavedHooks:
    """Hooks; how they were made, and what was found of them, as JSON has it."""

    hooks: tuple[Hook, ...]
    report: dict[str, Any]


def save_hooks(path: str | os.PathLike[str], hooks: Sequence[Hook], report: dict[str, Any] | None = None) -> None:
    """Writes the file, whole or not at all: a training that is killed leaves the last one as it was.

    Raises UsageError: `path` cannot be written.
    """
    members: dict[str, bytes] = {}
    listed = []
    for number, hook in enumerate(hooks):
        names = [f"{number}_{i}.npy" for i in range(len(hook.weights))]
        for name, array in zip(names, hook.weights, strict=True):
            members[name] = _packed(array)
        listed.append(
            {
                "site": hook.site,
                "kind": hook.kind,
                "feature": hook.feature,
                "threshold": _as_text(hook.threshold),
                "tile": hook.tile,
                "weights": {name: blake3(members[name]).hexdigest() for name in names},
            }
        )
    manifest = {"format": FORMAT, "hooks": listed, "report": report or {}}
    with write_whole(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, data in {_MANIFEST: json.dumps(manifest, indent=1).encode(), **members}.items():
            archive.writestr(zipfile.ZipInfo(name), data)


def load_hooks(path: str | os.PathLike[str]) -> SavedHooks:
    """Reads and checks the file. Raises InputError: no such file, not one of hooks, altered, or of a newer format."""
    where = Path(path)
    try:
        with zipfile.ZipFile(where) as archive:
            manifest = json.loads(archive.read(_MANIFEST))
            if manifest["format"] > FORMAT:
                raise InputError(
                    "these hooks are of a newer format", where=where, expected=f"up to {FORMAT}", got=manifest["format"]
                )
            hooks = tuple(_hook(archive, fields, where) for fields in manifest["hooks"])
            return SavedHooks(hooks, dict(manifest["report"]))
    except FileNotFoundError:
        raise InputError("no such file", where=where, hint="Save hooks with evo-tvm gate --save.") from None
    except _BROKEN as error:
        raise InputError("not a file of hooks, or a damaged one", where=where, hint="Train the hooks again.") from error


def _hook(archive: zipfile.ZipFile, fields: dict[str, Any], where: Path) -> Hook:
    weights = []
    for name, wanted in fields["weights"].items():
        if archive.getinfo(name).file_size > _LARGEST_BYTES:
            raise ValueError(name)
        data = archive.read(name)
        if blake3(data).hexdigest() != wanted:
            raise InputError("is altered: a checksum differs", where=f"{where}, {name}", hint="Train the hooks again.")
        weights.append(np.load(io.BytesIO(data), allow_pickle=False))
    if fields["kind"] not in KINDS:
        raise InputError("unknown kind of hook", where=where, expected=", ".join(KINDS), got=fields["kind"])
    threshold = float(fields["threshold"])
    tile = int(fields.get("tile", 0))
    return Hook(str(fields["site"]), fields["kind"], str(fields["feature"]), tuple(weights), threshold, tile)


def _packed(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array, np.float32), allow_pickle=False)
    return file.getvalue()


def _as_text(threshold: float) -> float | str:
    """JSON has no infinities."""
    return threshold if math.isfinite(threshold) else str(threshold)
