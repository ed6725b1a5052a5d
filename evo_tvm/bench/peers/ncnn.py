"""ncnn, whose models are made from ONNX files by pnnx."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from evo_tvm._extras import needs_extra
from evo_tvm.bench.peers.face import Array, Peer, check_importable, convert, converted, native_output, refusal
from evo_tvm.errors import MissingExtraError, ModelError
from evo_tvm.spec import TensorSpec

TITLE = "ncnn"
#: How pnnx writes that a tensor has no axis that it knows to be the batch.
NO_BATCH_AXIS = "233"
PNNX_VERSION = "20261020"
#: Half precision, in which ncnn stores and computes by default where the CPU can.
HALF = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage")
#: Layers that surely only read their input. Others may work in place or pass it on, and where ncnn does not own the
#: memory that ends the process.
READERS = ("Convolution", "ConvolutionDepthWise")
FAST = ("lightmode", "use_packing_layout", "use_winograd_convolution", "use_sgemm_convolution")


class NcnnSession:
    """ncnn in float32, with packed layouts, Winograd and GEMM convolutions, and light mode.

    It has no batch: pnnx gets the model of one sample, and `run` takes the samples one after the other. An input that
    goes into a convolution is not copied.
    """

    precision = "f32"

    def __init__(self, model: Path, threads: int, folder: Path) -> None:
        with needs_extra("compiler"):
            from evo_tvm.bench.peers import prepare_model
        import ncnn

        self._model = model
        given = prepare_model.read(model)
        inputs, outputs = prepare_model.input_specs(given), prepare_model.output_specs(given)
        self._inputs = [spec.name for spec in inputs]
        self._batch = self._common_batch(inputs)
        self._outputs = {spec.name: (self._batch, *(size or -1 for size in spec.shape[1:])) for spec in outputs}
        path = converted(model, folder, ".ncnn.param")
        if not path.exists():
            self._convert(prepare_model.one_sample(given).SerializeToString(), inputs, path)
        self._whole = self._with_batch_axis(path.with_suffix(".py").read_text())
        self._mat = ncnn.Mat
        self._net = ncnn.Net()
        for option in HALF:
            setattr(self._net.opt, option, False)
        for option in FAST:
            setattr(self._net.opt, option, True)
        self._net.opt.num_threads = threads
        with native_output() as said:
            status = self._net.load_param(str(path)) or self._net.load_model(str(path.with_suffix(".bin")))
            said.seek(0)
            reason = said.read().decode(errors="replace")
        if status != 0:
            raise self._refusal("load", reason)
        blobs = dict(zip(self._net.input_names(), self._net.input_indexes(), strict=True))
        self._copied = {
            name
            for number, name in enumerate(self._inputs)
            for layer in self._net.layers()
            if blobs[f"in{number}"] in layer.bottoms and layer.type not in READERS
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, of the inputs by name."""
        samples = [self._run_sample(inputs, index) for index in range(self._batch)]
        try:
            return {
                name: np.stack([sample[number] for sample in samples]).reshape(shape)
                for number, (name, shape) in enumerate(self._outputs.items())
            }
        except ValueError as error:
            raise self._refusal("run", f"an output has not the shape that ONNX gives it: {error}") from error

    def _run_sample(self, inputs: Mapping[str, Array], index: int) -> list[Array]:
        """The outputs of one sample, in their order, without a batch axis."""
        extractor = self._net.create_extractor()
        for number, name in enumerate(self._inputs):
            value = inputs[name]
            sample = self._mat(value[index : index + 1] if name in self._whole else value[index])
            status = extractor.input(f"in{number}", sample.clone() if name in self._copied else sample)
            if status != 0:
                raise self._refusal("run", f"status {status} of input {name!r}")
        found = []
        for number, name in enumerate(self._outputs):
            status, output = extractor.extract(f"out{number}")
            if status != 0:
                raise self._refusal("run", f"status {status} of output {name!r}")
            found.append(np.array(output))
        return found

    def _common_batch(self, inputs: Sequence[TensorSpec]) -> int:
        """The size of the first axis of all inputs."""
        for spec in inputs:
            if spec.dtype != "float32":
                raise self._refusal("convert", f"the input {spec.name!r} is {spec.dtype}, not float32")
            if 0 in spec.shape:
                raise self._refusal("convert", f"the input {spec.name!r} has free sizes")
        sizes = {spec.shape[:1] for spec in inputs}
        if len(sizes) != 1 or sizes == {()}:
            raise self._refusal("convert", "the inputs have no common batch axis")
        return sizes.pop()[0]

    def _with_batch_axis(self, example: str) -> set[str]:
        """The inputs that keep their batch axis: pnnx drops it where it sees which one it is, and its example tells."""
        found = set()
        for number, name in enumerate(self._inputs):
            told = re.search(rf'"in{number}", ncnn\.Mat\(in{number}\.numpy\(\), batch_index=(\d+)\)', example)
            if told is None or told[1] not in ("0", NO_BATCH_AXIS):
                raise self._refusal("convert", f"the batch axis of the input {name!r} is not its first")
            if told[1] == NO_BATCH_AXIS:
                found.add(name)
        return found

    def _convert(self, sample: bytes, inputs: Sequence[TensorSpec], path: Path) -> None:
        """Write the model of one sample as ncnn's files: `path`, the same with .bin, and with .py how to feed it."""
        source = path.with_name(f"{path.name.split('.')[0]}_part.onnx")
        source.write_bytes(sample)
        shapes = ",".join(f"[{','.join(map(str, (1, *spec.shape[1:])))}]f32" for spec in inputs)
        command = [str(pnnx_path()), source.name, f"inputshape={shapes}", "fp16=0"]
        said = convert(TITLE, "ncnn", self._model, command, path.parent)
        for made, kept in (("_ncnn.py", ".py"), (".ncnn.bin", ".bin"), (".ncnn.param", ".param")):
            written = source.with_name(source.stem + made)
            if not written.exists():
                raise self._refusal("convert", said)
            written.rename(path.with_suffix(kept))

    def _refusal(self, what: str, reason: str) -> ModelError:
        return refusal(TITLE, "ncnn", what, reason, self._model)


def pnnx_path() -> Path:
    """The program inside the package pnnx, which is not imported: that would import torch."""
    found = importlib.util.find_spec("pnnx")
    if found is None or found.origin is None:
        raise MissingExtraError(
            "the peer ncnn needs pnnx, which converts ONNX files for it",
            hint=f"Install it, without the torch that it asks for: pip install --no-deps pnnx=={PNNX_VERSION}",
        )
    return Path(found.origin).with_name("pnnx")


def check_installed() -> None:
    check_importable("ncnn")
    pnnx_path()


PEER = Peer(
    name="ncnn",
    title=TITLE,
    distributions=("ncnn", "pnnx"),
    options="fp16 and bf16 off, packed layouts, Winograd and sgemm convolutions, light mode, `num_threads` as given",
    open=NcnnSession,
    check_installed=check_installed,
)
