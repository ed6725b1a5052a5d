"""The shared library of a model, opened from memory through ctypes. Needs neither TVM nor tvm_ffi."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import Any

from evo_tvm.errors import ArtifactError, EvoError

ABI_VERSION = 3
_KERNEL_ERROR_NO_THREADS = -1001


class Library:
    """An open model library. Not safe to close while a run is going on.

    Raises ArtifactError when the system's loader refuses it, or when it has another ABI than this runtime.
    """

    def __init__(self, code: bytes | memoryview, where: object = "model.so") -> None:
        self._path, self._fd = _place(code)
        try:
            self._lib: ctypes.CDLL | None = ctypes.CDLL(self._path)
        except OSError as error:
            self._drop_file()
            reason = str(error).removeprefix(f"{self._path}: ")
            raise ArtifactError(
                f"its library cannot be loaded: {reason}",
                where=where,
                hint="Compile the model again on, or for, this machine.",
            ) from None
        if self._fd is None:
            self._drop_file()  # a temporary file: once loaded, it needs its name no more
        lib = self._lib
        self._check_version(where)
        try:
            lib.evo_pool_create.restype = ctypes.c_void_p
            lib.evo_pool_create.argtypes = [ctypes.c_int32]
            lib.evo_pool_destroy.restype = None
            lib.evo_pool_destroy.argtypes = [ctypes.c_void_p]
            lib.evo_pool_threads.restype = ctypes.c_int32
            lib.evo_pool_threads.argtypes = [ctypes.c_void_p]
            lib.evo_run.restype = ctypes.c_int32
            lib.evo_run.argtypes = [ctypes.c_void_p] * 7
            self.num_inputs = ctypes.c_int32.in_dll(lib, "evo_num_inputs").value
            self.num_outputs = ctypes.c_int32.in_dll(lib, "evo_num_outputs").value
            self.num_kernels = ctypes.c_int32.in_dll(lib, "evo_num_kernels").value
            self.weights_bytes = ctypes.c_uint64.in_dll(lib, "evo_weights_bytes").value
            self.prepared_bytes = ctypes.c_uint64.in_dll(lib, "evo_prepared_bytes").value
            self.arena_bytes = ctypes.c_uint64.in_dll(lib, "evo_arena_bytes").value
            sizes = ctypes.c_uint64 * (self.num_inputs + self.num_outputs)
            self.tensor_bytes = tuple(sizes.in_dll(lib, "evo_tensor_bytes"))
            lib.evo_prepare.restype = ctypes.c_int32
            lib.evo_prepare.argtypes = [ctypes.c_void_p] * 3
            lib.evo_measure.restype = ctypes.c_int32
            lib.evo_measure.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p]
        except (AttributeError, ValueError) as error:
            self.close()
            raise ArtifactError(f"its library is not a model's ({error})", where=where) from None
        self.prepare = lib.evo_prepare
        self.run = lib.evo_run
        self.measure = lib.evo_measure

    def _check_version(self, where: object) -> None:
        try:
            found = int(self._lib.evo_abi_version())  # type: ignore[union-attr]
        except AttributeError as error:
            self.close()
            raise ArtifactError(f"its library is not a model's ({error})", where=where) from None
        if found != ABI_VERSION:
            self.close()
            raise ArtifactError(
                "its library has another interface than this evo_tvm calls",
                where=where,
                expected=f"version {ABI_VERSION}",
                got=f"version {found}",
                hint="Compile the model again with this evo_tvm.",
            )

    def array(self, name: str, kind: type[Any], count: int) -> Any:
        """The `count` elements of a ctypes `kind` that the library exports under a name; not to be used once closed.

        Raises ArtifactError: it exports no such thing.
        """
        assert self._lib is not None
        try:
            return (kind * count).in_dll(self._lib, name)
        except ValueError as error:
            raise ArtifactError(f"its library lacks its gates ({error})", hint="Compile the model again.") from None

    def make_pool(self, threads: int) -> int:
        """A handle of a pool of exactly `threads` threads. Raises EvoError where the system gives no more threads."""
        assert self._lib is not None
        pool = self._lib.evo_pool_create(threads)
        if not pool:
            raise EvoError(f"the system cannot give {threads} threads", hint="Ask for fewer with num_threads.")
        return int(pool)

    def pool_threads(self, pool: int) -> int:
        """The number of threads that a run on `pool` uses."""
        assert self._lib is not None
        return int(self._lib.evo_pool_threads(pool))

    def destroy_pool(self, pool: int) -> None:
        """Ends the pool's threads."""
        assert self._lib is not None
        self._lib.evo_pool_destroy(pool)

    def close(self) -> None:
        """Unloads the library. Every pool of it must have been destroyed."""
        import _ctypes

        lib, self._lib = self._lib, None
        if lib is None:
            return
        _ctypes.dlclose(lib._handle)
        if self._fd is not None and not _is_loaded(self._path):
            self._drop_file()

    def _drop_file(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        else:
            with suppress(OSError):
                os.unlink(self._path)
                os.rmdir(os.path.dirname(self._path))


def _place(code: bytes | memoryview) -> tuple[str, int | None]:
    """Puts the library where the loader can open it: (path, descriptor) of a file in memory, or (path, None) of a
    private temporary file, in a folder of its own.

    The descriptor must stay open as long as the library is loaded: the loader takes a path that it has seen for the
    library that it has, and a closed descriptor's number, so its path, would come again.
    """
    try:
        fd = os.memfd_create("evo_tvm_model")
    except (AttributeError, OSError):  # an old kernel, or a policy that forbids it
        import tempfile

        path = os.path.join(tempfile.mkdtemp(prefix="evo_tvm_"), "model.so")
        with open(path, "wb") as file:
            file.write(code)
        return path, None
    with open(fd, "wb", closefd=False) as file:
        file.write(code)
    return f"/proc/self/fd/{fd}", fd


def _is_loaded(path: str) -> bool:
    import _ctypes

    try:
        handle = _ctypes.dlopen(path, os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return False
    _ctypes.dlclose(handle)
    return True


def run_error(code: int, where: object) -> EvoError:
    """What a non-zero result of `run` means."""
    if code == _KERNEL_ERROR_NO_THREADS:
        return EvoError("the system gives this forked process no threads for the model", where=where)
    return EvoError(
        f"a kernel failed with code {code}", where=where, hint="This is a bug of evo_tvm: please report it."
    )
