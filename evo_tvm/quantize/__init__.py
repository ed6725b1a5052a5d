"""Float models to int8: observers, scales and zero points, the QDQ model, and the error of each layer.

The room is a function too: `evo_tvm.quantize(model, data)` is `evo_tvm.quantize_model.quantize`, whichever was imported
first. What runs the models is handed in (`run_model.MakeRunner`); the room knows no engine.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """See `evo_tvm.quantize_model.quantize`."""
        from evo_tvm.quantize_model import quantize

        return quantize(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
