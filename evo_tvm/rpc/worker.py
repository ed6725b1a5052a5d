"""The process that talks to a board: it may hang, crash or be killed, and the one that asked goes on.

`python -m evo_tvm.rpc.worker DESCRIPTOR` takes (method, arguments) through a pipe and answers each: ("value", it),
("error", text) where the board refused, or ("lost", text) where the connection is gone. It imports no compiler.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from evo_tvm.errors import MissingExtraError
from evo_tvm.rpc.tvm_library import load_tvm_runtime

_PR_SET_PDEATHSIG = 1
#: A device of session i is a device of this machine plus this times i + 1.
_SESSION_MASK = 128
_CPU = 1
#: What TVM's client says where the other side is gone; 1 is kShutdown, too.
_LOST = re.compile(
    r"kShutdown|kReturn\) is false: code=1\b"
    r"|SockChannel|Connection reset|Broken pipe|channel.*closed|kRecvPacketNumBytes"
)


class Worker:
    """One session at a board; its methods are what a `Session` calls by name."""

    def __init__(self) -> None:
        load_tvm_runtime()
        import tvm_ffi

        self._ffi = tvm_ffi
        self._tensors: list[Any] = []

    def connect(self, host: str, port: int, key: str) -> None:
        """Opens the session."""
        self._session = self._ffi.get_global_func("rpc.Connect")(host, port, key, False)
        index = self._ffi.get_global_func("rpc.SessTableIndex")(self._session)
        self._device = self._ffi.Device(_CPU + _SESSION_MASK * (index + 1), 0)

    def call(self, name: str, *arguments: int | str | bytes) -> object:
        """Calls a global function of the board."""
        result = self._session[name](*arguments)
        return bytes(result) if isinstance(result, bytes) else str(result) if isinstance(result, str) else result

    def load(self, name: str) -> None:
        """Loads an uploaded library."""
        self._library = self._ffi.get_global_func("rpc.LoadRemoteModule")(self._session, name)

    def allocate(self, shape: Sequence[int], dtype: str) -> int:
        """A number for a fresh tensor in the board's memory."""
        allocate = self._ffi.get_global_func("runtime.TVMTensorAllocWithScope")
        self._tensors.append(allocate(self._ffi.Shape(shape), self._ffi.dtype(dtype), self._device, None))
        return len(self._tensors) - 1

    def free(self, tensor: int) -> None:
        """Gives the tensor's memory back."""
        self._tensors[tensor] = None

    def write(self, tensor: int, data: bytes) -> None:
        """Fills a tensor."""
        source = np.frombuffer(data, np.uint8)
        copy = self._ffi.get_global_func("runtime.TVMTensorCopyFromBytes")
        copy(self._tensors[tensor], ctypes.c_void_p(source.ctypes.data), source.nbytes)

    def read(self, tensor: int, size_bytes: int) -> bytes:
        """All of a tensor."""
        target = np.empty(size_bytes, np.uint8)
        copy = self._ffi.get_global_func("runtime.TVMTensorCopyToBytes")
        copy(self._tensors[tensor], ctypes.c_void_p(target.ctypes.data), target.nbytes)
        return target.tobytes()

    def invoke(self, name: str, first: int | str | None, tensors: Sequence[int]) -> None:
        """Calls a function of the library with `first`, unless it is None, and tensors."""
        arguments = [] if first is None else [first]
        self._library[name](*arguments, *(self._tensors[i] for i in tensors))


def _text(error: Exception) -> str:
    """What the board said, in one line and without what TVM puts around it."""
    said = str(error).rpartition("Error caught from RPC call:")[2]
    return " ".join(re.sub(r"Check failed: .*? is false: ", "", said).split()) or type(error).__name__


def main(descriptor: int) -> None:
    """Answers until the other side closes the pipe."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = Connection(descriptor)
    try:
        worker = Worker()
    except MissingExtraError as error:
        pipe.send(("missing", str(error)))
        return
    pipe.send(("value", None))
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            os._exit(0)  # TVM's own end of a session would wait for the board
        try:
            pipe.send(("value", getattr(worker, method)(*arguments)))
        except Exception as error:
            pipe.send(("lost" if _LOST.search(str(error)) else "error", _text(error)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
