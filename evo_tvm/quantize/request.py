"""What a command or `evo_tvm.compile` was asked to quantize with, as one value. Imports no compiler by itself."""

from __future__ import annotations

import mmap
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evo_tvm.errors import UsageError
from evo_tvm.executor.cache import digest
from evo_tvm.quantize.options import QuantizeOptions
from evo_tvm.runtime import container

if TYPE_CHECKING:
    from evo_tvm.frontend.read_model import ModelSource
    from evo_tvm.quantize.accuracy_goal import AccuracyGoal
    from evo_tvm.quantize.calibration_data import CalibrationSource
    from evo_tvm.quantize.calibration_images import Preprocessing
    from evo_tvm.quantize.quantize_static import Quantized
    from evo_tvm.quantize.run_model import MakeRunner, Progress


@dataclass(frozen=True, eq=False)
class QuantizeRequest:
    """The arguments of `evo_tvm.quantize` beside the model, by the names that `evo_tvm.compile` gives them."""

    calib: CalibrationSource | None = None
    quantize_options: QuantizeOptions | None = None
    samples: int | None = None
    preprocessing: Preprocessing | None = None
    accuracy: AccuracyGoal | None = None

    @property
    def options(self) -> QuantizeOptions:
        """How to quantize."""
        return self.quantize_options or QuantizeOptions()

    def refuse(self) -> None:
        """Raises UsageError: something was given, where nothing is quantized."""
        for name, value in vars(self).items():
            if value is not None:
                hint = "Ask for the precision int8 or auto, or leave it out."
                raise UsageError("is for int8 and auto alone", where=name, hint=hint)

    def digest(self) -> str | None:
        """The hash of all that decides the result beside the model; None: it needs data that are in no file."""
        goal = self.accuracy
        sources = [self.calib] if goal is None else [self.calib, goal.data, goal.labels]
        contents = [_data_digest(source) for source in sources]
        asked = repr((self.options, self.samples, self.preprocessing, goal and (goal.max_drop, goal.metric)))
        return None if None in contents else digest(asked, *map(str, contents))

    def quantize(self, model: ModelSource, make_runner: MakeRunner, progress: Progress | None) -> Quantized | None:
        """The quantized model; None where `model` is one already, and there is nothing to quantize it with.

        Raises as `evo_tvm.quantize`.
        """
        from evo_tvm.quantize.prepare import is_quantized
        from evo_tvm.quantize.quantize_static import quantize_static

        if self.calib is None:
            if self.accuracy is None and is_quantized(model):
                return None
            raise UsageError(
                "there are no calibration data",
                hint="Give some samples of what the model will see: int8 needs the ranges of its tensors.",
            )
        return quantize_static(
            model, self.calib, self.options, make_runner, self.samples, self.preprocessing, self.accuracy, progress
        )

    def summary(self, quantized: Quantized) -> dict[str, Any]:
        """What a compiled model's manifest says of its quantization, in what JSON has."""
        from evo_tvm.quantize.report import finite

        found = quantized.as_json()
        return {"options": finite(asdict(self.options)), "left": found["left"], "accuracy": found["accuracy"]}


def _data_digest(source: object) -> str | None:
    """The hash of the file `source`, or of all in this folder; None where it is in memory, or cannot be read."""
    if source is None:
        return "nothing"
    if not isinstance(source, str | os.PathLike):
        return None
    path = Path(source)
    try:
        files = sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]
        return digest(str(path.is_dir()), *(part for file in files for part in (file.name, _checksum(file))))
    except (OSError, ValueError):  # ValueError: an empty file
        return None


def _checksum(path: Path) -> str:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        return container.checksum(memoryview(data))
