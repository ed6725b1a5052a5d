"""evo_tvm compiles trained neural networks for edge CPUs, on top of Apache TVM."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evo_tvm.artifact import Artifact
    from evo_tvm.compile_model import compile
    from evo_tvm.errors import (
        ArtifactError,
        CompileError,
        EvoError,
        InputError,
        MissingExtraError,
        ModelError,
        TargetError,
        UnsupportedOperatorError,
        UsageError,
    )
    from evo_tvm.gate_model import gate
    from evo_tvm.hook_network import HookNetwork
    from evo_tvm.predict_model import predict
    from evo_tvm.quantize_model import quantize
    from evo_tvm.runtime import Module, load
    from evo_tvm.spec import TensorSpec
    from evo_tvm.target import Target
    from evo_tvm.tune_model import tune

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "ArtifactError",
    "CompileError",
    "EvoError",
    "HookNetwork",
    "InputError",
    "MissingExtraError",
    "ModelError",
    "Module",
    "Target",
    "TargetError",
    "TensorSpec",
    "UnsupportedOperatorError",
    "UsageError",
    "compile",
    "gate",
    "load",
    "predict",
    "quantize",
    "tune",
]

# Where each public name lives. They are imported at first use: to run a model must not import what compiles one.
_HOMES = {
    "Artifact": "evo_tvm.artifact",
    "HookNetwork": "evo_tvm.hook_network",
    "Module": "evo_tvm.runtime",
    "Target": "evo_tvm.target",
    "TensorSpec": "evo_tvm.spec",
    "compile": "evo_tvm.compile_model",
    "gate": "evo_tvm.gate_model",
    "load": "evo_tvm.runtime",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("predict", "quantize", "tune"):  # rooms that are functions too
        return importlib.import_module(f"evo_tvm.{name}")
    value = getattr(importlib.import_module(_HOMES.get(name, "evo_tvm.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
