"""ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from evo_tvm.bench.peers.face import Array, Peer, check_importable, refusal

TITLE = "ONNX Runtime"


class OnnxRuntimeSession:
    """ONNX Runtime on the CPU with every graph optimisation; its own pool of `threads` threads, which may spin."""

    precision = "f32"

    def __init__(self, model: Path, threads: int, folder: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base but Exception
            raise refusal(TITLE, "ort", "load", str(error).splitlines()[0], model) from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, of the inputs by name."""
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))


PEER = Peer(
    name="ort",
    title=TITLE,
    distributions=("onnxruntime",),
    options="CPU provider, all graph optimisations, `intra_op_num_threads` as given, one inter-op thread",
    open=OnnxRuntimeSession,
    check_installed=partial(check_importable, "onnxruntime"),
)
