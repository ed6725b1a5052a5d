"""`import schedules` at the repository's root gives `evo_tvm.schedules` itself, not a second copy of it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Alias(MetaPathFinder, Loader):
    """Resolves `alias.x.y` to the module `real.x.y`."""

    def __init__(self, alias: str, real: str) -> None:
        self.alias, self.real = alias, real

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname.startswith(f"{self.alias}.") else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.real + spec.name.removeprefix(self.alias))
        # The import system is about to write the alias's spec over the module's own: exec_module puts it back.
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        alias_spec = module.__spec__
        if alias_spec is not None:
            module.__spec__ = alias_spec.loader_state


def be(real: str, alias: str) -> None:
    """Make the module that is being imported as `alias`, and all below it, the modules of `real`.

    Does nothing when the two names are equal. Call it in the first lines of a package's `__init__`.
    """
    if alias == real:
        return
    sys.meta_path.insert(0, _Alias(alias, real))
    sys.modules[alias] = importlib.import_module(real)
