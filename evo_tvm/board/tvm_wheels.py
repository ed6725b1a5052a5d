"""TVM's runtime libraries for a board, out of the wheels that PyPI has for its architecture."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from evo_tvm.errors import EvoError, MissingExtraError
from evo_tvm.executor.cache import Cache, digest
from evo_tvm.programs import run_program
from evo_tvm.runtime import cpu

#: Architectures that there are wheels for, and the oldest glibc that these run with.
WHEELS = ("x86_64", "aarch64")
PLATFORM = "manylinux_2_28"
#: The libraries by name: the wheel that has it, and where.
_LIBRARIES = {
    "libtvm_runtime.so": ("apache-tvm", "tvm/lib/libtvm_runtime.so"),
    "libtvm_ffi.so": ("apache-tvm-ffi", "tvm_ffi/lib/libtvm_ffi.so"),
}


def tvm_version() -> str:
    """The versions of TVM and its FFI that are installed. Raises MissingExtraError: one is not."""
    return " ".join(f"{name} {_version(name)}" for name, _ in _LIBRARIES.values())


def package_folder(name: str) -> Path:
    """Where the package "tvm" or "tvm_ffi" is installed. Raises MissingExtraError: it is not."""
    spec = importlib.util.find_spec(name)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        return Path(folder)
    raise _missing(name)


def write_libraries(arch: str, folder: Path, cache: Cache) -> list[Path]:
    """Writes the libraries for `arch`, one of WHEELS, into `folder`: of the installed packages where they fit, else
    downloaded by pip, 95 MB, and kept in the cache.

    Raises EvoError: pip cannot download them. MissingExtraError: TVM is not installed here.
    """
    paths = []
    for name, (wheel, member) in _LIBRARIES.items():
        paths.append(folder / name)
        if arch == cpu.arch():
            package, _, inside = member.partition("/")
            paths[-1].write_bytes((package_folder(package) / inside).read_bytes())
            continue
        key = digest(name, wheel, _version(wheel), arch)
        content = cache.get("board", key)
        if content is None:
            content = _download(wheel, member, arch)
            cache.put("board", key, content)
        paths[-1].write_bytes(content)
    return paths


def _download(wheel: str, member: str, arch: str) -> bytes:
    wanted = f"{wheel}=={_version(wheel)}"
    with tempfile.TemporaryDirectory(prefix="evo_tvm_wheel_") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--platform", f"{PLATFORM}_{arch}", "--dest", folder, wanted]
        try:
            run_program(command)
        except EvoError as error:
            said = [line for line in error.what.splitlines() if line.startswith("ERROR")] or [error.what]
            raise EvoError(
                f"pip cannot download {wanted} for {arch}: {said[-1]}",
                where="board build",
                hint="The board's libraries come from PyPI, once: run this where the network is, or set pip's index. "
                "--without-server builds evo-run alone.",
            ) from None
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive:
            return archive.read(member)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        raise _missing(distribution) from None


def _missing(name: str) -> MissingExtraError:
    return MissingExtraError(
        f"this needs the extra 'rpc': {name} is not installed", hint='Install it with: pip install "evo_tvm[rpc]"'
    )
