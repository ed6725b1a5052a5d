"""What `compile` gives: a model's library, weights and manifest, in memory or as one .evo file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from evo_tvm.runtime.manifest import Manifest

if TYPE_CHECKING:
    from evo_tvm.runtime.module import Module


@dataclass(frozen=True)
class Artifact:
    """A compiled model. `library`: the shared library; `weights`: the packed constants that it reads."""

    manifest: Manifest
    library: bytes = field(repr=False)
    weights: bytes | memoryview = field(repr=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the .evo file, whole or not at all. Raises UsageError: `path` cannot be written."""
        from evo_tvm.runtime import container

        container.write(path, self.manifest, self.library, self.weights)

    def module(self, num_threads: int | None = None) -> Module:
        """The model, ready to run, without a file. Raises ArtifactError: it is for another CPU than this."""
        from evo_tvm.runtime.module import Module

        return Module(self.manifest, self.library, self.weights, num_threads)

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Artifact:
        """Reads and checks an .evo file, for whatever CPU it is. Raises ArtifactError as `evo_tvm.load`."""
        from evo_tvm.runtime import container

        contents = container.read(path)
        return Artifact(contents.manifest, bytes(contents.library), contents.weights)
