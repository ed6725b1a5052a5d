"""Other runtimes that a model is compared with, each behind the same small face."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from evo_tvm._extras import needs_extra
from evo_tvm.errors import ModelError, UsageError

Array = npt.NDArray[Any]


class Session(Protocol):
    """A model that a peer has loaded."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, of the inputs by name."""
        ...


@dataclass(frozen=True)
class Peer:
    """A runtime: its short name on the command line, its own name, where it comes from, and how to load a model."""

    name: str
    title: str
    distribution: str
    module: str
    open: Callable[[Path, int], Session]


class OnnxRuntimeSession:
    """ONNX Runtime on the CPU with every graph optimisation; its own pool of `threads` threads, which may spin."""

    def __init__(self, model: Path, threads: int) -> None:
        with needs_extra("compare"):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base but Exception
            raise ModelError(
                f"ONNX Runtime does not load the model: {str(error).splitlines()[0]}",
                where=model,
                hint='Check the file with: python -m onnx.checker MODEL, or leave "ort" out of --peers.',
            ) from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, of the inputs by name."""
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))


PEERS: Mapping[str, Peer] = {
    peer.name: peer for peer in (Peer("ort", "ONNX Runtime", "onnxruntime", "onnxruntime", OnnxRuntimeSession),)
}


def find_peers(names: Sequence[str]) -> tuple[Peer, ...]:
    """The peers of these names, in their order; each is installed.

    Raises
    ------
    UsageError: no name at all, or an unknown one.
    MissingExtraError: one that is not installed.
    """
    known = ", ".join(PEERS)
    if not names:
        raise UsageError("no peer to compare with", where="--peers", hint=f"Known peers: {known}.")
    for name in names:
        if name not in PEERS:
            close = difflib.get_close_matches(name, PEERS, n=1)
            ask = f"Did you mean {close[0]}? " if close else ""
            raise UsageError(f"unknown peer {name!r}", where="--peers", hint=f"{ask}Known peers: {known}.")
    found = tuple(PEERS[name] for name in dict.fromkeys(names))
    for peer in found:
        with needs_extra("compare"):
            importlib.import_module(peer.module)
    return found
