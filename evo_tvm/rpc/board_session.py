"""One session on a board: what a client can call there, beside what TVM's runtime offers by itself.

Uploaded files are kept under names that hold a hash of their content, so that each comes once. `FUNCTIONS` are the
names that clients call; the server in C++ has the same.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from evo_tvm import __version__
from evo_tvm.errors import BoardError
from evo_tvm.rpc.tvm_library import load_tvm_runtime
from evo_tvm.runtime import cpu

FUNCTIONS = "evo_tvm.board."
#: Beyond this, the files that were not used for longest are removed.
KEPT_BYTES = 1 << 30

_NAME = re.compile(r"[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*")
_PR_SET_PDEATHSIG = 1


def prepare_to_serve(folder: Path) -> None:
    """Before a server forks: loads TVM's runtime, makes the folder, and removes what interrupted uploads left.

    Raises BoardError: the folder cannot be written. MissingExtraError: TVM is not installed.
    """
    load_tvm_runtime()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in folder.glob("*.part"):
            left.unlink()
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(None, "it cannot be written")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BoardError(
            f"uploads cannot be kept there: {reason}", where=folder, hint="Choose another folder with --work."
        ) from None


def serve(descriptor: int, folder: Path) -> NoReturn:
    """Serves the client at the socket `descriptor`, and ends this process with it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = 1
    try:
        import tvm_ffi

        files = BoardFiles(folder)
        for name, function in {
            "tvm.rpc.server.workpath": lambda name: str(folder / str(name)),
            "tvm.rpc.server.load_module": lambda name: tvm_ffi.load_module(str(folder / str(name))),
            f"{FUNCTIONS}describe": describe,
            f"{FUNCTIONS}size": files.size,
            f"{FUNCTIONS}append": files.append,
            f"{FUNCTIONS}finish": files.finish,
        }.items():
            tvm_ffi.register_global_func(name, function, override=True)
        tvm_ffi.get_global_func("rpc.ServerLoop")(descriptor)
        status = 0
    finally:
        os._exit(status)


def describe() -> str:
    """This board as JSON: see `Board`."""
    cpuinfo = Path("/proc/cpuinfo")
    return json.dumps(
        {
            "server": f"evo_tvm {__version__}",
            "arch": cpu.arch(),
            "features": sorted(cpu.features()),
            "cores": cpu.usable_cores(),
            "load": os.getloadavg()[0],
            "cpuinfo": cpuinfo.read_text(errors="replace") if cpuinfo.exists() else "",
        }
    )


class BoardFiles:
    """The uploaded files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def size(self, name: str) -> int:
        """The bytes of a file that is there, and marks it as used; else -1."""
        path = self._path(name)
        with suppress(OSError):
            os.utime(path)
            return path.stat().st_size
        return -1

    def append(self, name: str, offset: int, data: bytes) -> int:
        """Writes the next part of a file that is being uploaded; the bytes so far. Raises OSError: the disk is full."""
        part = self._part(name)
        try:
            with open(part, "wb" if offset == 0 else "r+b", buffering=0) as file:
                file.seek(offset)
                left = memoryview(data)
                while left:
                    left = left[file.write(left) :]
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OSError(self._cannot_write(error)) from None
        return offset + len(data)

    def finish(self, name: str, size: int) -> int:
        """Gives the uploaded file its name, on the disk for good; what else is kept makes room."""
        part = self._part(name)
        try:
            with open(part, "rb") as file:
                os.fsync(file.fileno())
            if part.stat().st_size != size:
                raise OSError(None, "the upload is not whole")
            part.rename(self._path(name))
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OSError(self._cannot_write(error)) from None
        self._trim(self._path(name))
        return size

    def _path(self, name: str) -> Path:
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} is no name of a file here")
        return self._folder / name

    def _part(self, name: str) -> Path:
        path = self._path(name)
        return path.with_name(f"{path.name}.{os.getpid()}.part")

    def _cannot_write(self, error: OSError) -> str:
        free = os.statvfs(self._folder)
        reason = (error.strerror or str(error)).lower()
        return f"cannot write to {self._folder}: {reason} ({free.f_bavail * free.f_frsize >> 20} MB free)"

    def _trim(self, newest: Path) -> None:
        files = [(path.stat(), path) for path in self._folder.iterdir() if path.is_file()]
        total = sum(status.st_size for status, _ in files)
        for status, path in sorted(files, key=lambda item: item[0].st_mtime_ns):
            if total > KEPT_BYTES and path != newest:
                path.unlink(missing_ok=True)
                total -= status.st_size
