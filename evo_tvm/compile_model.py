"""`evo_tvm.compile`: a model that was compiled before comes from the cache, and TVM is not even imported."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

from evo_tvm.artifact import Artifact
from evo_tvm.errors import ArtifactError, UsageError
from evo_tvm.executor.cache import Cache, digest, open_cache
from evo_tvm.executor.revision import NOT_SHAPING, revision
from evo_tvm.quantize.request import QuantizeRequest
from evo_tvm.runtime import container
from evo_tvm.target import Target, resolve
from evo_tvm.tune.folders import user_digest

if TYPE_CHECKING:
    import onnx

    from evo_tvm.executor.build import Progress
    from evo_tvm.frontend.read_model import ModelSource
    from evo_tvm.quantize.accuracy_goal import AccuracyGoal
    from evo_tvm.quantize.calibration_data import CalibrationSource
    from evo_tvm.quantize.calibration_images import Preprocessing
    from evo_tvm.quantize.options import QuantizeOptions
    from evo_tvm.quantize.run_model import Runner

#: What a model can be compiled to compute in.
PRECISIONS = ("fp32", "int8", "auto")
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
    measure: bool = False,
    predict: bool = False,
) -> Artifact:
    """Compiles an ONNX model for a target.

    model: a path or a loaded ModelProto. target: "host", a name of `evo_tvm.target.list_targets()`, or a triple.
    num_threads: threads that the artifact runs with unless told otherwise when it is loaded. precision: "fp32" compiles
    the model as it is, one that is quantized in integers; "int8" quantizes it first, with `calib` and what follows it,
    which `evo_tvm.quantize` explains, and needs no `calib` for a model that is quantized already; "auto" does the same,
    and then takes float or integers for each layer, by what this machine measures, with the reasons in
    `artifact.manifest.quantization["precision"]`. input_shapes: shapes of inputs whose dimensions the model leaves
    free; where it is None, those of the calibration data. algorithms: layer's name, or "*" for all that fit, -> the
    algorithm to use, instead of the one that measurements or estimates speak for (`artifact.manifest.plan` has both).
    dump: a folder that gets the module after each phase; nothing comes from the cache then. progress: called with
    (phase, done, total). measure: kernels that were not measured yet are, in the few configurations that are predicted
    to be best, on this machine; the user's tuning logs keep the times. predict: "auto" decides by predicted times, and
    compiles only what it takes, as it does for targets whose code this machine cannot run.

    Calibration data that are not in files cannot be told from others, so that such a model is calibrated each time.
    Raises ModelError, UnsupportedOperatorError, TargetError, UsageError, CompileError; InputError: calibration data
    that do not fit.
    """
    if precision not in PRECISIONS:
        raise UsageError("unknown precision", expected=" or ".join(PRECISIONS), got=precision)
    if precision == "auto" and dump is not None:
        raise UsageError("is for one form of the model, and auto compiles several", where="dump")
    if precision != "auto" and predict:
        raise UsageError("is for precision auto, which measures otherwise", where="predict")
    if precision == "auto" and measure:
        raise UsageError("is for one form of the model, and auto measures several by itself", where="measure")
    request = QuantizeRequest(calib, quantize_options, samples, preprocessing, accuracy)
    if precision == "fp32":
        request.refuse()
    resolved = target if isinstance(target, Target) else resolve(target)
    cache = Cache(None) if dump is not None else open_cache()
    contents = (_model_digest(model), request.digest()) if cache.folder is not None else (None, None)
    asked = repr((resolved, num_threads, precision, predict, input_shapes, algorithms, user_digest(resolved)))
    key = None if None in contents else digest(*map(str, contents), asked, _versions())
    if measure:
        key = None  # it depends on times that are not known yet
    if key is not None and (found := _recall(cache, key)) is not None:
        if progress is not None:
            progress("read from the cache", 1, 1)
        return found
    from evo_tvm import pipeline

    quantized = request.quantize(model, compiled, progress) if precision != "fp32" else None
    plain: ModelSource | None = None
    said: dict[str, Any] = {}
    examples: Sequence[Mapping[str, Any]] = ()
    if quantized is not None:
        plain, model = model, quantized.model
        input_shapes = quantized.shapes if input_shapes is None else input_shapes
        said, examples = request.summary(quantized), quantized.examples
    if precision == "auto":
        from evo_tvm.precision.choose import choose_precision

        artifact, report = choose_precision(
            model, plain, resolved, num_threads, input_shapes, algorithms, examples, progress, predict
        )
        said["precision"] = report.as_json()
    else:
        artifact = pipeline.compile(model, resolved, num_threads, input_shapes, algorithms, dump, progress, measure)
    if said:
        artifact = replace(artifact, manifest=replace(artifact.manifest, quantization=said))
    if key is not None and len(artifact.library) + len(artifact.weights) <= cache.limit_bytes * _LARGEST_SHARE:
        cache.write("model", key, *container.pack(artifact.manifest, artifact.library, artifact.weights))
        cache.trim()
    return artifact


def compiled(model: onnx.ModelProto) -> Runner:
    """Runs models as evo_tvm compiles them for this machine: what quantization is handed to run models with."""
    module = compile(model).module()
    return lambda inputs: module.run(inputs)


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
            with open(model, "rb") as file:
                data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    except (OSError, ValueError):  # no such file; an empty one; more than protobuf can write
        return None
    return None if data.find(_EXTERNAL_DATA) >= 0 else container.checksum(memoryview(data))


def _versions() -> str:
    found = []
    for name in _READERS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(name)
    return f"{', '.join(found)}; {revision(NOT_SHAPING)}"
