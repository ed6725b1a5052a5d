"""Instructions per inference on an emulated Cortex-A76: evo_tvm beside ONNX Runtime's wheel for AArch64."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

import evo_tvm
from evo_tvm.bench import zoo
from evo_tvm.bench.arm64_python import fetch
from evo_tvm.bench.emulator import count
from evo_tvm.bench.quantized import quantize_as_ort
from evo_tvm.board.build_run import build_evo_run
from evo_tvm.errors import UsageError
from evo_tvm.target import Target, resolve

TARGET = "cortex-a76"
PRECISIONS = ("fp32", "int8")
_ORT = """
import sys
import numpy
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
given = session.get_inputs()[0]
x = numpy.random.default_rng(0).random(given.shape, dtype=numpy.float32)
for _ in range(int(sys.argv[2])):
    session.run(None, {given.name: x})
"""


@dataclass(frozen=True)
class Counts:
    """Instructions per inference of both sides on one thread."""

    model: str
    precision: str
    evo_tvm: int
    onnxruntime: int

    def as_json(self) -> dict[str, Any]:
        """The fields, and how many times as many as ONNX Runtime's ours are."""
        return {**asdict(self), "ratio": self.evo_tvm / self.onnxruntime}


def count_models(
    models: Sequence[str], precisions: Sequence[str], runs: int, report: Callable[[str], object]
) -> Iterator[Counts]:
    """Counts zoo models one by one; an inference is (count of `runs` runs - count of one) / (runs - 1).

    Raises UsageError: no such model or precision; EvoError: a program is missing, a download or a run failed.
    """
    for precision in precisions:
        if precision not in PRECISIONS:
            raise UsageError(f"unknown precision {precision!r}", hint=f"Choose of {', '.join(PRECISIONS)}.")
    networks = {name: zoo.build(name) for name in models}
    python, target = fetch(report), resolve(TARGET)
    with tempfile.TemporaryDirectory(prefix="evo_tvm-count-") as name:
        folder = Path(name)
        evo_run = folder / "evo-run"
        build_evo_run(target, evo_run)
        for model, network in networks.items():
            for precision in precisions:
                report(f"Counting {model} in {precision} ...")
                path = _write(network, precision, folder)
                artifact = evo_tvm.compile(path, target=TARGET)
                artifact.save(folder / "model.evo")
                ours = ["-L", f"/usr/{target.triple}", str(evo_run), str(folder / "model.evo")]
                theirs = python.command(_ORT, str(path))
                yield Counts(
                    model,
                    precision,
                    _per_inference(target, [*ours, "--threads", "1", "--warmup", "0", "--repeat"], runs, folder),
                    _per_inference(target, theirs, runs, folder),
                )


def _write(network: onnx.ModelProto, precision: str, folder: Path) -> Path:
    plain, quantized = folder / "fp32.onnx", folder / "int8.onnx"
    onnx.save(network, plain)
    if precision == "fp32":
        return plain
    quantize_as_ort(plain, quantized)
    return quantized


def _per_inference(target: Target, command: Sequence[str], runs: int, folder: Path) -> int:
    """command: takes the number of runs as its last argument."""
    once, often = (count(target, [*command, str(n)], folder).instructions for n in (1, runs))
    return (often - once) // (runs - 1)
