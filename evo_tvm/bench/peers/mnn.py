"""MNN, which converts a model with the converter inside its own wheel."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from evo_tvm._extras import needs_extra
from evo_tvm.bench.peers.face import Array, Peer, check_importable, convert, converted, native_output, refusal

TITLE = "MNN"
# The command `mnnconvert` does the same and more: it installs a package and sends usage data.
CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"


class MnnSession:
    """MNN's session API on the CPU in high precision, which is float32.

    An input is copied into the session's memory; an output is a view of it.
    """

    precision = "f32"

    def __init__(self, model: Path, threads: int, folder: Path) -> None:
        path = converted(model, folder, ".mnn")
        if not path.exists():
            _convert(model, path)
        with native_output():  # it greets on standard output
            import MNN

            try:
                self._interpreter = MNN.Interpreter(str(path))
            except Exception as error:  # it raises no class of its own
                raise refusal(TITLE, "mnn", "load", str(error), model) from error
            self._session = self._interpreter.createSession(
                {"backend": "CPU", "numThread": threads, "precision": "high"}
            )
            inputs = self._interpreter.getSessionInputAll(self._session)
            self._inputs = {name: tensor.getNumpyData() for name, tensor in inputs.items()}
            self._outputs = self._interpreter.getSessionOutputAll(self._session)
        self._model = model

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, of the inputs by name."""
        try:
            for name, value in inputs.items():
                np.copyto(self._inputs[name], value, casting="no")
        except (KeyError, TypeError, ValueError) as error:  # it renamed, retyped or reshaped an input
            raise refusal(TITLE, "mnn", "run", f"{type(error).__name__}: {error}", self._model) from error
        status = self._interpreter.runSession(self._session)
        if status != 0:
            raise refusal(TITLE, "mnn", "run", f"status {status}", self._model)
        return {name: tensor.getNumpyData() for name, tensor in self._outputs.items()}


def _convert(model: Path, path: Path) -> None:
    """Write MNN's form of the model to `path`."""
    with needs_extra("compiler"):
        import onnx

        from evo_tvm.bench.peers import prepare_model
    source, partial = path.with_suffix(".mnn.onnx"), path.with_suffix(".part.mnn")
    onnx.save(prepare_model.read(model), source)
    command = [sys.executable, "-c", CONVERT, "-f", "ONNX", "--bizCode", "MNN"]
    files = ["--modelFile", str(source.resolve()), "--MNNModel", str(partial.resolve())]
    said = convert(TITLE, "mnn", model, [*command, *files], path.parent)  # it leaves a file where it runs
    if not partial.exists():  # its status is 0 even then
        raise refusal(TITLE, "mnn", "convert", said, model)
    partial.rename(path)


def check_installed() -> None:
    with native_output():
        check_importable("MNN")


PEER = Peer(
    name="mnn",
    title=TITLE,
    distributions=("MNN",),
    options="PyPI's wheel, which has AVX2 and no AVX-512 code; CPU backend, precision high, `numThread` as given",
    open=MnnSession,
    check_installed=check_installed,
)
