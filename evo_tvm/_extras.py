"""Optional parts of the distribution: which modules each extra brings, and what to say where one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from evo_tvm.errors import MissingExtraError

#: What each extra brings, by the names under which it is imported.
EXTRAS = {
    "compiler": {"ml_dtypes", "onnx", "onnx_ir", "onnxscript", "onnxslim", "tvm", "xgboost"},
    "compare": {"MNN", "ncnn", "onnxruntime", "openvino"},
    "images": {"PIL"},
    "rpc": {"psutil", "tornado", "tvm"},
    "report": {"matplotlib"},
}


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn the import error of a module that `extra` brings into one that says what to install.

    Raises
    ------
    MissingExtraError: one of its modules is not installed. Any other import error passes as it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRAS[extra]:
            raise
        raise MissingExtraError(
            f"this needs the extra {extra!r}: {error.name} is not installed",
            hint=f'Install it with: pip install "evo_tvm[{extra}]"',
        ) from error
