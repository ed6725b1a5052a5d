"""`evo_tvm.compile`: a model that was compiled before comes from the cache, and TVM is not even imported."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evo_tvm.artifact import Artifact
from evo_tvm.errors import ArtifactError, UsageError
from evo_tvm.executor.cache import Cache, digest, open_cache
from evo_tvm.executor.revision import NOT_SHAPING, revision
from evo_tvm.runtime import container
from evo_tvm.target import Target, resolve
from evo_tvm.tune.folders import user_digest

if TYPE_CHECKING:
    import onnx

    from evo_tvm.executor.build import Progress
    from evo_tvm.quantize.accuracy_goal import AccuracyGoal
    from evo_tvm.quantize.calibration_data import CalibrationSource
    from evo_tvm.quantize.calibration_images import Preprocessing
    from evo_tvm.quantize.options import QuantizeOptions
    from evo_tvm.quantize.quantize_static import Quantized
    from evo_tvm.quantize.run_model import Runner

#: What a model can be compiled to compute in.
PRECISIONS = ("fp32", "int8")
#: One artifact may take this share of the cache.
_LARGEST_SHARE = 0.25
#: What else reads a model, beside ourselves: distributions whose versions count.
_READERS = ("apache-tvm", "numpy", "onnx", "onnx-ir", "onnxscript")
#: A tensor whose data lie in another file names it under this key.
_EXTERNAL_DATA = b"\x0a\x08location"


def compile(
    model: str | os.PathLike[str] | onnx.ModelProto,
    target: str | Target = "host",
    num_threads: int = 1,
    precision: str = "fp32",
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    algorithms: Mapping[str, str] | None = None,
    dump: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    *,
    calib: CalibrationSource | None = None,
    quantize_options: QuantizeOptions | None = None,
    samples: int | None = None,
    preprocessing: Preprocessing | None = None,
    accuracy: AccuracyGoal | None = None,
) -> Artifact:
    """Compiles an ONNX model for a target.

    model: a path or a loaded ModelProto. target: "host", a name of `evo_tvm.target.list_targets()`, or a triple.
    num_threads: threads that the artifact runs with unless told otherwise when it is loaded. precision: "fp32" compiles
    the model as it is, one that is quantized in integers; "int8" quantizes it first, with `calib` and what follows it,
    which `evo_tvm.quantize` explains, and needs no `calib` for a model that is quantized already. input_shapes: shapes
    of inputs whose dimensions the model leaves free; where it is None, those of the calibration data. algorithms:
    layer's name, or "*" for all that fit, -> the algorithm to use, instead of the one that measurements or estimates
    speak for (`artifact.manifest.plan` has both). dump: a folder that gets the module after each phase; nothing comes
    from the cache then. progress: called with (phase, done, total).

    Calibration data that are not in files cannot be told from others, so that such a model is calibrated each time.
    Raises ModelError, UnsupportedOperatorError, TargetError, UsageError, CompileError; InputError: calibration data
    that do not fit.
    """
    if precision not in PRECISIONS:
        raise UsageError("unknown precision", expected=" or ".join(PRECISIONS), got=precision)
    options = {"quantize_options": quantize_options, "samples": samples, "preprocessing": preprocessing}
    _check_is_for_int8(precision, {"calib": calib, "accuracy": accuracy, **options})
    resolved = target if isinstance(target, Target) else resolve(target)
    cache = Cache(None) if dump is not None else open_cache()
    sources = [calib] if accuracy is None else [calib, accuracy.data, accuracy.labels]
    contents = [_model_digest(model), *map(_data_digest, sources)] if cache.folder is not None else [None]
    goal = None if accuracy is None else (accuracy.max_drop, accuracy.metric)
    asked = repr((resolved, num_threads, precision, input_shapes, algorithms, user_digest(resolved), options, goal))
    key = None if None in contents else digest(*map(str, contents), asked, _versions())
    if key is not None and (found := _recall(cache, key)) is not None:
        if progress is not None:
            progress("read from the cache", 1, 1)
        return found
    from evo_tvm import pipeline

    quantized = None
    if precision == "int8":
        quantized = _quantize(model, calib, quantize_options, samples, preprocessing, accuracy, progress)
    if quantized is not None:
        model = quantized.model
        input_shapes = quantized.shapes if input_shapes is None else input_shapes
    artifact = pipeline.compile(model, resolved, num_threads, input_shapes, algorithms, dump, progress)
    if quantized is not None:
        manifest = replace(artifact.manifest, quantization=_summary(quantized, quantize_options))
        artifact = replace(artifact, manifest=manifest)
    if key is not None and len(artifact.library) + len(artifact.weights) <= cache.limit_bytes * _LARGEST_SHARE:
        cache.write("model", key, *container.pack(artifact.manifest, artifact.library, artifact.weights))
        cache.trim()
    return artifact


def compiled(model: onnx.ModelProto) -> Runner:
    """Runs models as evo_tvm compiles them for this machine: what quantization is handed to run models with."""
    module = compile(model).module()
    return lambda inputs: module.run(inputs)


def _check_is_for_int8(precision: str, given: Mapping[str, object]) -> None:
    """Refuse what only quantization reads where nothing is quantized."""
    for name, value in given.items():
        if precision != "int8" and value is not None:
            raise UsageError("is for int8 alone", where=name, hint="Ask for the precision int8, or leave it out.")


def _quantize(
    model: str | os.PathLike[str] | onnx.ModelProto,
    calib: CalibrationSource | None,
    options: QuantizeOptions | None,
    samples: int | None,
    preprocessing: Preprocessing | None,
    accuracy: AccuracyGoal | None,
    progress: Progress | None,
) -> Quantized | None:
    """The quantized model; None where `model` is one already, and nothing was given to quantize it with."""
    from evo_tvm.quantize.options import QuantizeOptions
    from evo_tvm.quantize.prepare import is_quantized
    from evo_tvm.quantize.quantize_static import quantize_static

    if calib is None:
        if accuracy is None and is_quantized(model):
            return None
        raise UsageError(
            "there are no calibration data",
            hint="Give some samples of what the model will see: int8 needs the ranges of its tensors.",
        )
    return quantize_static(
        model, calib, options or QuantizeOptions(), compiled, samples, preprocessing, accuracy, progress
    )


def _summary(quantized: Quantized, options: QuantizeOptions | None) -> dict[str, Any]:
    """What the manifest says of quantization, in what JSON has."""
    from evo_tvm.quantize.options import QuantizeOptions
    from evo_tvm.quantize.report import finite

    found = quantized.as_json()
    return {
        "options": finite(asdict(options or QuantizeOptions())),
        "left": found["left"],
        "accuracy": found["accuracy"],
    }


def _recall(cache: Cache, key: str) -> Artifact | None:
    path = cache.path("model", key)
    if path is None or not path.exists():
        return None
    try:
        found = container.read(path)
    except ArtifactError as error:
        cache.drop("model", key, error.what)
        return None
    cache.touch(path)
    return Artifact(found.manifest.with_checksums({}), bytes(found.library), found.weights)


def _model_digest(model: str | os.PathLike[str] | onnx.ModelProto) -> str | None:
    """The hash of all that the model is; None where it is in several files, or cannot be read."""
    try:
        if not isinstance(model, str | os.PathLike):
            data: bytes | mmap.mmap = model.SerializeToString(deterministic=True)
        else:
            data = _mapped(model)
    except (OSError, ValueError):  # no such file; an empty one; more than protobuf can write
        return None
    return None if data.find(_EXTERNAL_DATA) >= 0 else container.checksum(memoryview(data))


def _data_digest(source: object) -> str | None:
    """The hash of the file `source`, or of all in this folder; None where it is in memory, or cannot be read."""
    if source is None:
        return "none"
    if not isinstance(source, str | os.PathLike):
        return None
    path = Path(source)
    try:
        files = sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]
        found = [part for file in files for part in (file.name, container.checksum(memoryview(_mapped(file))))]
    except (OSError, ValueError):
        return None
    return digest(str(path.is_dir()), *found)


def _mapped(path: str | os.PathLike[str]) -> mmap.mmap:
    """The content of a file. Raises OSError; ValueError: it is empty."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)


def _versions() -> str:
    found = []
    for name in _READERS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(name)
    return f"{', '.join(found)}; {revision(NOT_SHAPING)}"
