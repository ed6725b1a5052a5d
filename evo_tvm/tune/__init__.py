"""Measuring kernels: the search over configurations, and the log that keeps what was found.

The room is a function too: `evo_tvm.tune(model)` is `evo_tvm.tune_model.tune`, whichever was imported first.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """See `evo_tvm.tune_model.tune`."""
        from evo_tvm.tune_model import tune

        return tune(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
