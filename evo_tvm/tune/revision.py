"""The revision of an algorithm's kernel: a hash of the sources that make it, comments and docstrings left out."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

from evo_tvm.algorithms import ALGORITHMS, _base
from evo_tvm.executor.cache import digest

#: Imports from rooms that make kernels; what else an algorithm imports only judges them.
_IMPORTS = re.compile(r"^from (evo_tvm\.(?:kernels|schedules)\S*) import (\([^)]*\)|.*)$", re.MULTILINE)
#: Moves weights at compile time, for all algorithms: in which order a kernel reads them is in its `stage`.
_SHARED = frozenset(("evo_tvm.kernels.pack",))
#: What of an algorithm makes its kernel; the rest (where it fits, default, space, cost) may change freely.
_METHODS = re.compile(r"^    def (?:border|stage|schedule)\(.*?(?=^    def |^    @|^\S|\Z)", re.DOTALL | re.MULTILINE)
#: Docstrings, comments after code, and lines that are empty or a comment.
_SILENT = re.compile(r'""".*?"""|^[ \t]*(?:#[^\n]*)?\n|[ \t]+#[^\n]*', re.DOTALL | re.MULTILINE)


@cache
def revision_of(operator: str, algorithm: str) -> str:
    """16 hexadecimal digits; "" where there is no such algorithm, so that nothing measured of it counts.

    In it: its methods that make the kernel, and what it imports, directly or not, of the rooms kernels and schedules.
    """
    found = ALGORITHMS.get(operator, {}).get(algorithm)
    if found is None:
        return ""
    module = type(found).__module__
    parts = [algorithm, *_methods(_base.__name__), *_methods(module)]
    waiting, seen = [module], {module}
    while waiting:
        new = _imports(waiting.pop()) - seen
        seen |= new
        waiting += new
    return digest(*parts, *(_spoken(_source(name)) for name in sorted(seen - {module})))[:16]


def _methods(module: str) -> list[str]:
    return [_spoken(text) for text in _METHODS.findall(_source(module))]


@cache
def _imports(module: str) -> frozenset[str]:
    """The modules of `_IMPORTS` that `module` imports at its top, those for type checking alone left out."""
    names = {
        name
        for source, imported in _IMPORTS.findall(_source(module))
        for name in (source, *(f"{source}.{word}" for word in re.findall(r"\w+", imported)))
    }
    return frozenset(name for name in names if name in sys.modules and name.count(".") > 1) - _SHARED


@cache
def _source(module: str) -> str:
    return Path(str(sys.modules[module].__file__)).read_text()


def _spoken(source: str) -> str:
    """The source without what says nothing to Python."""
    return _SILENT.sub("", source)
