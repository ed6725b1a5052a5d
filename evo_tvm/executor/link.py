"""C sources and kernel objects => one shared library, with whatever C compiler the machine has."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from evo_tvm.errors import CompileError

#: What every model's library is linked with, beside its own model.c.
SUPPORT_SOURCES = (Path(__file__).with_name("support.c"), Path(__file__).with_name("packed.c"))

#: All that a library exports. Everything else stays inside it, so two models in one process cannot meet.
EXPORTS = (
    "evo_abi_version",
    "evo_pool_create",
    "evo_pool_destroy",
    "evo_pool_threads",
    "evo_run",
    "evo_target",
    "evo_num_inputs",
    "evo_num_outputs",
    "evo_num_kernels",
    "evo_tensor_bytes",
    "evo_weights_bytes",
    "evo_arena_bytes",
    "__tvm_ffi_main",
    "__tvm_ffi_set_num_threads",
)

_COMPILE = ("-std=c11", "-O2", "-fPIC", f"-I{Path(__file__).parent}")
# Bound at load: a symbol that nobody defines is found out there, not in the middle of a run.
_LINK = ("-z", "noexecstack", "-z", "relro", "-z", "now", "--strip-debug")
#: Shared objects that a library names as needed, by the last part of the triple.
_C_LIBRARIES = {"gnu": ("libc.so.6", "libm.so.6", "libpthread.so.0"), "musl": ("libc.so",)}


def link_library(objects: Sequence[Path], sources: Sequence[Path], out: Path, triple: str) -> None:
    """Compiles the C `sources` and links them with `objects` into the shared library `out` for `triple`.

    The compiler is `cc`, `gcc` or `clang` for this machine, `<triple>-gcc` for another, and where there is none, or
    it fails, the `ziglang` package, which needs neither root nor the C library's development files.

    Raises CompileError: no compiler was found, or all that were found failed (their output is in the text).
    """
    arch, abi = _arch_and_abi(triple)
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="evo_tvm_link_") as folder:
        scratch = Path(folder)
        exports = scratch / "exports.map"
        exports.write_text(f"{{ global: {'; '.join(EXPORTS)}; local: *; }};\n")
        for link in _linkers(arch, abi):
            try:
                link([*map(str, objects)], [*map(str, sources)], str(out), scratch)
                return
            except CompileError as error:
                failures.append(str(error))
                out.unlink(missing_ok=True)
    if failures:
        raise CompileError("\n".join(failures), where=out.name)
    raise CompileError(
        f"no C compiler for {triple} to link the model with",
        hint=f"Run: pip install ziglang  (or install {_cross_name(arch, abi)}, or a C compiler for this machine)",
    )


_Link = Callable[[list[str], list[str], str, Path], None]


def _linkers(arch: str, abi: str) -> list[_Link]:
    """The ways to link for `arch` that this machine has, best first."""
    names = [_cross_name(arch, abi)]
    if arch == _arch_and_abi(platform.machine())[0] and abi == "gnu":
        names = ["cc", "gcc", "clang", *names]
    found = [path for path in map(shutil.which, names) if path is not None]
    linkers: list[_Link] = [_CompilerDriver(found[0])] if found else []
    zig = _find_zig()
    if zig is not None:
        linkers.append(_Zig(zig, arch, abi))
    return linkers


class _CompilerDriver:
    """gcc or clang: one command compiles and links."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, objects: list[str], sources: list[str], out: str, scratch: Path) -> None:
        link = [f"-Wl,{','.join(_LINK)}", "-Wl,-z,defs", f"-Wl,--version-script={scratch / 'exports.map'}"]
        _run([self.path, *_COMPILE, "-shared", *link, "-o", out, *sources, *objects, "-lm", "-lpthread"])


class _Zig:
    """The `ziglang` package. Its `cc -shared` first builds a C library for the target, which takes 20 s; so it only
    compiles here, and its bare linker links against empty stand-ins, which leave the names of the libraries to load.
    """

    def __init__(self, zig: str, arch: str, abi: str) -> None:
        self.zig, self.arch, self.abi = zig, arch, abi

    def __call__(self, objects: list[str], sources: list[str], out: str, scratch: Path) -> None:
        target = f"{self.arch}-linux-{self.abi}"
        # Out-of-line atomics would come from the compiler's own library, which is not linked.
        flags = ["-mno-outline-atomics"] if self.arch == "aarch64" else []
        empty = scratch / "empty.c"
        empty.touch()
        compiled: list[str] = []
        for i, source in enumerate([str(empty), *sources]):
            compiled.append(str(scratch / f"{i}.o"))
            _run([self.zig, "cc", "-target", target, *_COMPILE, *flags, "-c", source, "-o", compiled[-1]])
        libraries = []
        for name in _C_LIBRARIES["musl" if self.abi.startswith("musl") else "gnu"]:
            libraries.append(str(scratch / name))
            _run([self.zig, "ld.lld", "-shared", "-soname", name, "-o", libraries[-1], compiled[0]])
        link = [*_LINK, "--version-script", str(scratch / "exports.map"), "--no-as-needed"]
        _run([self.zig, "ld.lld", "-shared", *link, "-o", out, *compiled[1:], *objects, *libraries])


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise CompileError(f"{command[0]} did not start: {error.strerror}") from None
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        said = "\n".join(lines[:20]) or "it said nothing"
        raise CompileError(f"{Path(command[0]).name} failed with status {done.returncode}:\n{said}")


def _find_zig() -> str | None:
    spec = importlib.util.find_spec("ziglang")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        zig = Path(folder) / "zig"
        if zig.is_file():
            return str(zig)
    return None


def _arch_and_abi(triple: str) -> tuple[str, str]:
    """("x86_64", "gnu") of "x86_64-unknown-linux-gnu"; a bare architecture means glibc."""
    parts = triple.split("-")
    arch = {"arm64": "aarch64", "amd64": "x86_64"}.get(parts[0].lower(), parts[0].lower())
    return arch, parts[-1] if len(parts) > 2 else "gnu"


def _cross_name(arch: str, abi: str) -> str:
    return f"{arch}-linux-{abi}-gcc"
