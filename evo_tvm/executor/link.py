"""C sources and kernel objects => one shared library or program, with whatever C compiler the machine has.

Compiling the support code takes longer than many a kernel: objects and libraries are kept in the cache.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import cache as memoize
from functools import partial
from pathlib import Path
from typing import Protocol

from evo_tvm.errors import CompileError
from evo_tvm.executor.cache import Cache, digest, digest_files, open_cache
from evo_tvm.programs import find_zig, run_program

#: What every model's library is linked with, beside its own model.c.
SUPPORT_SOURCES = tuple(Path(__file__).with_name(name) for name in ("support.c", "packed.c", "prepare.c", "measure.c"))

#: All that a library exports. Everything else stays inside it, so two models in one process cannot meet.
EXPORTS = (
    "evo_abi_version",
    "evo_pool_create",
    "evo_pool_destroy",
    "evo_pool_threads",
    "evo_measure",
    "evo_prepare",
    "evo_run",
    "evo_target",
    "evo_num_inputs",
    "evo_num_outputs",
    "evo_num_kernels",
    "evo_tensor_bytes",
    "evo_weights_bytes",
    "evo_prepared_bytes",
    "evo_arena_bytes",
    "__tvm_ffi_main",
    "__tvm_ffi_prepare",
    "__tvm_ffi_read",
    "__tvm_ffi_time",
    "__tvm_ffi_limits",
    "__tvm_ffi_set_num_threads",
)
#: What the library of a model with gates exports, too.
GATE_EXPORTS = (
    "evo_num_gates",
    "evo_num_decisions",
    "evo_gate_thresholds",
    "evo_gate_scores",
    "evo_gate_decisions",
    "evo_gate_counts",
)

_FLAGS = ("-std=c11", "-O2", "-fPIC")
_HEADERS = Path(__file__).parent
# Bound at load: a symbol that nobody defines is found out there, not in the middle of a run.
_LINK = ("-z", "noexecstack", "-z", "relro", "-z", "now", "--strip-debug")
_PROGRAM_LIBRARIES = ("-ldl", "-lm", "-lpthread")
# Shared objects that a library names as needed, by the last part of the triple.
_C_LIBRARIES = {"gnu": ("libc.so.6", "libm.so.6", "libpthread.so.0"), "musl": ("libc.so",)}

_run = partial(run_program, error=CompileError)


def link_library(
    objects: Sequence[Path],
    sources: Sequence[Path],
    out: Path,
    triple: str,
    cache: Cache | None = None,
    exports: Sequence[str] = EXPORTS,
) -> None:
    """Compiles the C `sources` and links them with `objects` into the shared library `out` for `triple`.

    The compiler is `cc`, `gcc` or `clang` for this machine, `<triple>-gcc` for another, and where there is none, or
    it fails, the `ziglang` package, which needs neither root nor the C library's development files. `cache`: the one
    that the environment names where it is None.

    Raises CompileError: no compiler was found, or all that were found failed (their output is in the text).
    """
    version = f"{{ global: {'; '.join(exports)}; local: *; }};\n"

    def link(tool: _Tool, compiled: Sequence[Path], path: Path) -> None:
        script = compiled[0].with_name("exports.map")
        script.write_text(version)
        tool.link([*compiled, *objects], path, script)

    parts = (version.encode(), *(path.read_bytes() for path in objects))
    _with_any_tool("library", sources, link, parts, out, triple, cache)


def link_program(sources: Sequence[Path], out: Path, triple: str, cache: Cache | None = None) -> None:
    """Compiles the C `sources` into the program `out` for `triple`, against libc, libm, pthread and dl alone.

    Compilers, `cache` and errors are those of `link_library`. The `ziglang` package builds a C library for `triple`
    first, which takes it half a minute, once.
    """
    _with_any_tool("program", sources, lambda tool, *files: tool.program(*files), (), out, triple, cache)
    out.chmod(0o755)


def _with_any_tool(
    kind: str,
    sources: Sequence[Path],
    link: Callable[[_Tool, Sequence[Path], Path], None],
    parts: Sequence[bytes],
    out: Path,
    triple: str,
    cache: Cache | None,
) -> None:
    """Has `link` make `out` of the compiled sources, with the first tool that can. `parts`: what else it is made of."""
    cache = open_cache() if cache is None else cache
    arch, abi = _arch_and_abi(triple)
    failures: list[str] = []
    for tool in _tools(arch, abi):
        try:
            return _build(tool, kind, sources, partial(link, tool), parts, out, cache)
        except CompileError as error:
            failures.append(str(error))
            out.unlink(missing_ok=True)
    if failures:
        raise CompileError("\n".join(failures), where=out.name)
    raise CompileError(f"no C compiler for {triple} to link {out.name} with", hint=_how_to_install(arch, abi))


def _how_to_install(arch: str, abi: str) -> str:
    package = f"g++-{_cross_name(arch, abi).removesuffix('-gcc')}".replace("_", "-")
    if abi == "musl":
        return 'Run: pip install "evo_tvm[zig]"'
    if arch == _arch_and_abi(platform.machine())[0]:
        package = "g++"
    return f'Run: apt install {package}  or, without root: pip install "evo_tvm[zig]"'


def _build(
    tool: _Tool,
    kind: str,
    sources: Sequence[Path],
    link: Callable[[Sequence[Path], Path], None],
    parts: Sequence[bytes],
    out: Path,
    cache: Cache,
) -> None:
    identity = tool.identity()
    with tempfile.TemporaryDirectory(prefix="evo_tvm_link_") as folder:
        compiled = []
        for i, source in enumerate(sources):
            compiled.append(Path(folder) / f"{i}.o")
            headers = digest_files({*_HEADERS.glob("*.h"), *source.parent.glob("*.h")})
            key = digest(identity, headers, source.read_bytes())
            _make(cache, "object", key, compiled[-1], partial(tool.compile, source))
        key = digest(identity, kind, *parts, *(path.read_bytes() for path in compiled))
        _make(cache, kind, key, out, partial(link, compiled))


def _make(cache: Cache, kind: str, key: str, path: Path, make: Callable[[Path], None]) -> None:
    """Has `path` written, from the cache or by `make`."""
    content = cache.get(kind, key)
    if content is not None:
        path.write_bytes(content)
        return
    make(path)
    cache.put(kind, key, path.read_bytes())


class _Tool(Protocol):
    def identity(self) -> str:
        """All that decides what it makes of the same sources."""

    def compile(self, source: Path, out: Path) -> None: ...

    def link(self, objects: Sequence[Path], out: Path, exports: Path) -> None:
        """Makes a shared library."""

    def program(self, objects: Sequence[Path], out: Path) -> None: ...


def _tools(arch: str, abi: str) -> list[_Tool]:
    """The ways to link for `arch` that this machine has, best first."""
    names = [_cross_name(arch, abi)]
    if arch == _arch_and_abi(platform.machine())[0] and abi == "gnu":
        names = ["cc", "gcc", "clang", *names]
    found = [path for path in map(shutil.which, names) if path is not None]
    tools: list[_Tool] = [_CompilerDriver(found[0])] if found else []
    zig = find_zig()
    if zig is not None:
        tools.append(_Zig(zig, arch, abi))
    return tools


class _CompilerDriver:
    """gcc or clang."""

    def __init__(self, path: str) -> None:
        self.path = path

    def identity(self) -> str:
        return f"{_version(self.path, '--version')} {_FLAGS} {_LINK}"

    def compile(self, source: Path, out: Path) -> None:
        _run([self.path, *_FLAGS, f"-I{_HEADERS}", "-c", str(source), "-o", str(out)])

    def link(self, objects: Sequence[Path], out: Path, exports: Path) -> None:
        flags = [f"-Wl,{','.join(_LINK)}", "-Wl,-z,defs", f"-Wl,--version-script={exports}"]
        _run([self.path, "-shared", *flags, "-o", str(out), *map(str, objects), "-lm", "-lpthread"])

    def program(self, objects: Sequence[Path], out: Path) -> None:
        _run([self.path, f"-Wl,{','.join(_LINK)}", "-o", str(out), *map(str, objects), *_PROGRAM_LIBRARIES])


class _Zig:
    """The `ziglang` package. Its `cc -shared` first builds a C library for the target, which takes 20 s; so it only
    compiles here, and its bare linker links against empty stand-ins, which leave the names of the libraries to load.
    """

    def __init__(self, zig: str, arch: str, abi: str) -> None:
        self.zig, self.arch, self.abi = zig, arch, abi
        # Out-of-line atomics would come from the compiler's own library, which is not linked.
        outline = ["-mno-outline-atomics"] if arch == "aarch64" else []
        self.flags = ["-target", f"{arch}-linux-{abi}", *_FLAGS, *outline]

    def identity(self) -> str:
        return f"{_version(self.zig, 'version')} {self.flags} {_LINK}"

    def compile(self, source: Path, out: Path) -> None:
        _run([self.zig, "cc", *self.flags, f"-I{_HEADERS}", "-c", str(source), "-o", str(out)])

    def link(self, objects: Sequence[Path], out: Path, exports: Path) -> None:
        empty = exports.with_name("empty.c")
        empty.touch()
        self.compile(empty, empty.with_suffix(".o"))
        libraries = []
        for name in _C_LIBRARIES["musl" if self.abi.startswith("musl") else "gnu"]:
            libraries.append(str(exports.with_name(name)))
            _run([self.zig, "ld.lld", "-shared", "-soname", name, "-o", libraries[-1], str(empty.with_suffix(".o"))])
        link = [*_LINK, "--version-script", str(exports), "--no-as-needed"]
        _run([self.zig, "ld.lld", "-shared", *link, "-o", str(out), *map(str, objects), *libraries])

    def program(self, objects: Sequence[Path], out: Path) -> None:
        _run([self.zig, "cc", *self.flags, "-s", "-o", str(out), *map(str, objects), *_PROGRAM_LIBRARIES])


def _version(program: str, option: str) -> str:
    """The program's path, when it was installed, and what it says of itself."""
    return _ask_version(program, option, os.stat(program).st_mtime_ns)


@memoize
def _ask_version(program: str, option: str, installed_ns: int) -> str:
    return f"{os.path.realpath(program)} {installed_ns} {_run([program, option])}"


def _arch_and_abi(triple: str) -> tuple[str, str]:
    """("x86_64", "gnu") of "x86_64-unknown-linux-gnu"; a bare architecture means glibc."""
    parts = triple.split("-")
    arch = {"arm64": "aarch64", "amd64": "x86_64", "armv7a": "arm", "armv7l": "arm"}.get(parts[0], parts[0])
    return arch, parts[-1] if len(parts) > 2 else "gnu"


def _cross_name(arch: str, abi: str) -> str:
    return f"{arch}-linux-{abi}-gcc"
