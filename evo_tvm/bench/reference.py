"""Outputs to hold a board's against: those of the same model on this machine, or given ones."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import evo_tvm
from evo_tvm.bench.arrays import load_inputs
from evo_tvm.bench.compare import TOLERANCE, worst_difference
from evo_tvm.bench.compile_apart import compile_apart
from evo_tvm.bench.inputs import Array
from evo_tvm.errors import ArtifactError, EvoError
from evo_tvm.runtime import container
from evo_tvm.runtime.module import check_cpu
from evo_tvm.spec import TensorSpec


def reference_outputs(
    model: Path, reference: Path | None, inputs: Mapping[str, Array], outputs: Sequence[TensorSpec]
) -> Mapping[str, Array] | None:
    """Outputs for `inputs`: of `reference`, an .evo for this machine, an .onnx, which is compiled for it, or arrays
    (.npz, .npy); without it those of `model`, an .evo, itself, or None where this machine cannot run it.

    Raises
    ------
    EvoError: the reference cannot be read, compiled or run.
    """
    if reference is None:
        if not _runs_here(model):
            return None
        reference = model
    if reference.suffix in (".npz", ".npy"):
        return load_inputs(reference, outputs)
    if reference.suffix != ".onnx":
        return evo_tvm.load(reference).run(inputs)
    shapes = {name: value.shape for name, value in inputs.items()}
    with tempfile.TemporaryDirectory(prefix="evo_tvm-reference-") as folder:
        compiled = Path(folder) / "reference.evo"
        compile_apart(reference, compiled, input_shapes=shapes)
        return evo_tvm.load(compiled).run(inputs)


def check_outputs(ours: Mapping[str, Array], reference: Mapping[str, Array], where: object) -> float:
    """max |ours - reference| / max |reference|, the worst output's. Raises EvoError: it is above 1e-4."""
    found = worst_difference(ours, reference)
    if not found <= TOLERANCE:
        raise EvoError(
            "the outputs are not those of the reference",
            where=where,
            expected=f"a difference of at most {TOLERANCE:g}",
            got=f"{found:.3g}",
        )
    return found


def _runs_here(model: Path) -> bool:
    try:
        container.read(model, check_cpu)
    except ArtifactError:
        return False
    return True
