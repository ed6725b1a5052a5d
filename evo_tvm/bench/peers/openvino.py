"""OpenVINO, in float32 and in the precision that it chooses by itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from evo_tvm.bench.peers.face import Array, Peer, check_importable, refusal

TITLE = "OpenVINO"
OPTIONS: Mapping[str, object] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
SAID = "`PERFORMANCE_HINT` latency, 1 stream, `INFERENCE_NUM_THREADS` as given, pinning as it comes"


class OpenVinoSession:
    """OpenVINO's CPU plugin, for latency, one stream; neither inputs nor outputs are copied."""

    def __init__(self, name: str, options: Mapping[str, object], model: Path, threads: int, folder: Path) -> None:
        import openvino

        try:
            compiled = openvino.Core().compile_model(
                str(model), "CPU", {**OPTIONS, **options, "INFERENCE_NUM_THREADS": threads}
            )
        except RuntimeError as error:
            raise refusal(TITLE, name, "load", str(error), model) from error
        self.precision = str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
        self._tensor = openvino.Tensor
        self._request = compiled.create_infer_request()
        self._inputs = {name: port for port in compiled.inputs for name in port.get_names()}
        self._outputs = {name: port for port in compiled.outputs for name in port.get_names()}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, of the inputs by name."""
        for name, value in inputs.items():
            self._request.set_tensor(self._inputs[name], self._tensor(value, shared_memory=True))
        self._request.infer()
        return {name: self._request.get_tensor(port).data for name, port in self._outputs.items()}


PEER = Peer(
    name="openvino",
    title=TITLE,
    distributions=("openvino",),
    options=f"`INFERENCE_PRECISION_HINT` f32, {SAID}",
    open=partial(OpenVinoSession, "openvino", {"INFERENCE_PRECISION_HINT": "f32"}),
    check_installed=partial(check_importable, "openvino"),
)
DEFAULT_PRECISION_PEER = Peer(
    name="openvino-bf16",
    title="OpenVINO, its own precision",
    distributions=("openvino",),
    options=f"the precision that it chooses by itself, bf16 where the CPU computes in it, {SAID}",
    open=partial(OpenVinoSession, "openvino-bf16", {}),
    check_installed=partial(check_importable, "openvino"),
    fp32=False,
)
