"""What every peer looks like from outside, and the helpers that they share."""

from __future__ import annotations

import importlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import blake3
import numpy.typing as npt

from evo_tvm._extras import needs_extra
from evo_tvm.errors import ModelError

Array = npt.NDArray[Any]

#: How many of the last lines of what a runtime said an error repeats.
LAST_WORDS = 3
#: After this many seconds a converter has hung.
CONVERTING_S = 600


class Session(Protocol):
    """A model that a peer has loaded. `precision` is the type that it computes float32 models in."""

    precision: str

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by their ONNX names, of C-contiguous inputs by theirs.

        An output may be the runtime's own memory, which the next run overwrites.
        """
        ...


class OpenSession(Protocol):
    """Loads the ONNX file `model` for `threads` threads. Its inputs have fixed shapes, the batch first.

    What a converter makes of the model is kept in `folder` and found there the next time.

    Raises
    ------
    ModelError: the peer does not convert or load the model.
    """

    def __call__(self, model: Path, threads: int, folder: Path) -> Session: ...


@dataclass(frozen=True)
class Peer:
    """A runtime.

    name: what the command line calls it; title: what it calls itself; distributions: the Python packages whose versions
    matter; options: how it is set up, for the reader of a table; open: loads a model; check_installed: raises
    MissingExtraError where something is missing; fp32: whether it computes in float32, as evo_tvm does.
    """

    name: str
    title: str
    distributions: tuple[str, ...]
    options: str
    open: OpenSession
    check_installed: Callable[[], None]
    fp32: bool = True


def check_importable(module: str) -> None:
    """Raises MissingExtraError: a peer's module is not installed."""
    with needs_extra("compare"):
        importlib.import_module(module)


def refusal(title: str, name: str, what: str, reason: str, model: Path) -> ModelError:
    """The error of the peer `title` that does not do `what` ("load", "convert", "run") with the model."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    words = " / ".join(lines[-LAST_WORDS:]) or "it gives no reason"
    return ModelError(
        f"{title} does not {what} the model: {words}",
        where=model,
        hint=f'Check the file with: python -m onnx.checker MODEL, or leave "{name}" out of the peers.',
    )


def convert(title: str, name: str, model: Path, command: Sequence[str], folder: Path | None = None) -> str:
    """What a converter said; it runs as a process of its own, so that its crash is an error like any other.

    Raises
    ------
    ModelError: it fails, crashes or hangs.
    """
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=CONVERTING_S,
        )
    except subprocess.TimeoutExpired as error:
        raise refusal(title, name, "convert", f"no end after {CONVERTING_S} s", model) from error
    said = done.stdout.decode(errors="replace")
    if done.returncode < 0:
        raise refusal(title, name, "convert", f"the converter died of signal {-done.returncode}", model)
    if done.returncode > 0:
        raise refusal(title, name, "convert", said, model)
    return said


def converted(model: Path, folder: Path, ending: str) -> Path:
    """Where in `folder` the converted form of these bytes lies: the same bytes give the same path."""
    return folder / f"{blake3.blake3(model.read_bytes()).hexdigest()[:16]}{ending}"


@contextmanager
def native_output() -> Iterator[IO[bytes]]:
    """Catch what native code prints to the standard streams, which belong to our own output.

    Gives the file that holds it; read it from its start.
    """
    with tempfile.TemporaryFile() as caught:
        saved = [os.dup(stream) for stream in (1, 2)]
        try:
            for stream in (1, 2):
                os.dup2(caught.fileno(), stream)
            yield caught
        finally:
            for stream, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, stream)
                os.close(copy)
