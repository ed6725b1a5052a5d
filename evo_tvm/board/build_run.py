"""`evo-run`, the program that runs an .evo file on a board without Python and without TVM, built for a target."""

from __future__ import annotations

from pathlib import Path

from evo_tvm.executor.link import link_program
from evo_tvm.target import Target

#: Its sources; executor/abi.h is the interface that it calls.
SOURCES = tuple(sorted((Path(__file__).parent / "evo_run").glob("*.c")))


def build_evo_run(target: Target, out: Path) -> None:
    """Writes the program `out` for `target`'s architecture: about 80 KB that need libc, libm and pthread alone.

    Of the target only the triple counts: the program runs on every CPU of that architecture, and refuses a model that
    the CPU which it finds cannot run. Raises CompileError: no compiler, or it failed.
    """
    link_program(SOURCES, out, target.triple)
