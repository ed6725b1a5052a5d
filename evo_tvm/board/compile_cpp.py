"""C and C++ sources => a program for a board, compiled several at a time and kept in the cache."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from evo_tvm.errors import CompileError
from evo_tvm.executor.cache import Cache, digest
from evo_tvm.programs import find_zig, run_program
from evo_tvm.runtime import cpu

Step = Callable[[str, int, int], None]

_run = partial(run_program, error=CompileError)


@dataclass(frozen=True)
class Source:
    """A file to compile, and the compiler's options for it. `headers`: a digest of all that it includes."""

    path: Path
    flags: tuple[str, ...]
    headers: str


def build_program(
    sources: Sequence[Source],
    link_flags: Sequence[str],
    libraries: Sequence[Path],
    triple: str,
    out: Path,
    cache: Cache,
    progress: Step | None = None,
) -> None:
    """Writes the program `out`, linked with `link_flags` and the shared `libraries`, and stripped.

    The compiler is `<triple>-g++`, or for this machine's own architecture `g++` or `c++`, else `zig c++` of the
    `ziglang` package. Raises CompileError: there is none, or it failed.
    """
    command = _compiler(triple)
    identity = digest(*command, _run([*command, "--version"]))
    with tempfile.TemporaryDirectory(prefix="evo_tvm_board_") as folder, ThreadPoolExecutor(cpu.usable_cores()) as pool:
        objects = [Path(folder) / f"{i}.o" for i in range(len(sources))]
        jobs = [
            pool.submit(_compile, command, identity, source, path, cache)
            for source, path in zip(sources, objects, strict=True)
        ]
        try:
            for i, job in enumerate(jobs):
                if progress is not None:
                    progress("compiling", i, len(jobs))
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        # Where an architecture has no small atomic operations, gcc has them in a library.
        system = ["-ldl", "-lpthread", *([] if "c++" in command else ["-l:libatomic.a"])]
        files = [*map(str, objects), *link_flags, *map(str, libraries), *system]
        _run([*command, "-s", "-o", str(out), *files])


def _compile(command: Sequence[str], identity: str, source: Source, out: Path, cache: Cache) -> None:
    key = digest(identity, *source.flags, source.headers, source.path.read_bytes())
    content = cache.get("object", key)
    if content is not None:
        out.write_bytes(content)
        return
    language = ["-x", "c"] if source.path.suffix == ".c" else ["-std=c++20"]
    _run([*command, *language, *source.flags, "-c", str(source.path), "-o", str(out)])
    cache.put("object", key, out.read_bytes())


def _compiler(triple: str) -> tuple[str, ...]:
    arch, _, rest = triple.partition("-")
    names = [f"{triple}-g++"]
    if arch == platform.machine():
        names = ["g++", "c++", *names]
    found = next(filter(None, map(shutil.which, names)), None)
    if found is not None:
        return (found,)
    zig = find_zig()
    if zig is not None:
        return (zig, "c++", "-target", f"{arch}-{rest}")
    raise CompileError(
        f"no C++ compiler for {triple}",
        hint=f'Run: apt install g++-{triple.replace("_", "-")}  or, without root: pip install "evo_tvm[zig]"',
    )
