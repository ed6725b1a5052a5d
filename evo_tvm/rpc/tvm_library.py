"""TVM's runtime library without TVM's Python: 3 MB instead of 300, and a tenth of the time."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from pathlib import Path

from evo_tvm.errors import MissingExtraError

_loaded: list[ctypes.CDLL] = []


def load_tvm_runtime() -> None:
    """Makes TVM's global functions, those of its RPC among them, known to tvm_ffi.

    Raises MissingExtraError: TVM is not installed.
    """
    if _loaded:
        return
    os.environ.setdefault("TVM_BIND_THREADS", "0")  # its threads are not used: it need not bind ours to a core
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # which tvm_ffi would import where it is installed
    import tvm_ffi  # noqa: F401

    spec = importlib.util.find_spec("tvm")
    folders = [] if spec is None else [Path(folder) / "lib" for folder in spec.submodule_search_locations or ()]
    library = next((path for folder in folders if (path := folder / "libtvm_runtime.so").is_file()), None)
    if library is None:
        raise MissingExtraError(
            "this needs the extra 'rpc': tvm is not installed", hint='Install it with: pip install "evo_tvm[rpc]"'
        )
    _loaded.append(ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL))
