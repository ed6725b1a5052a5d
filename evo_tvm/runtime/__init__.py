"""Loads, runs and measures compiled models. Needs numpy and blake3; no compiler."""

from __future__ import annotations

import os

from evo_tvm.runtime.container import read
from evo_tvm.runtime.module import Module, check_cpu

__all__ = ["Module", "load"]


def load(path: str | os.PathLike[str], num_threads: int | None = None) -> Module:
    """Loads an .evo file. Its weights are mapped, not copied; some are transformed into memory beside them.

    `num_threads`: how many threads a run uses, the caller's among them; as compiled for where it is None.
    Raises ArtifactError: no such file, truncated, altered, of a newer format, or built for another CPU.
    UsageError: a num_threads that cannot be.
    """
    contents = read(path, check_cpu)
    if not contents.manifest.prepared_bytes:
        return Module(contents.manifest, contents.library, contents.weights, num_threads, os.fspath(path))
    contents.forget()  # to check the file, all of it was read
    module = Module(contents.manifest, contents.library, contents.weights, num_threads, os.fspath(path))
    contents.forget()  # and weights that were transformed are not read again
    return module
