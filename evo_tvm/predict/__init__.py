"""What a kernel or a model will take, learnt from tuning logs; nothing is compiled for it.

The room is a function too: `evo_tvm.predict(model)` is `evo_tvm.predict_model.predict`, whichever was imported first.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """See `evo_tvm.predict_model.predict`."""
        from evo_tvm.predict_model import predict

        return predict(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
