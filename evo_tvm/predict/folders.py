"""Where predictors lie: beside the tuning logs that they were learnt from."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

from evo_tvm.errors import UsageError
from evo_tvm.predict.model import Predictor, load_predictor
from evo_tvm.target import Target
from evo_tvm.tune.folders import log_name, predictor_file, shipped_folder, user_folder


class PredictorWarning(UserWarning):
    """A predictor that cannot be used. Estimates take its place."""


def predictor_of(target: Target) -> Predictor | None:
    """The user's own predictor for the target, else the one that is shipped, else None. One that cannot be used is
    passed over with a PredictorWarning."""
    for folder in (user_folder(), shipped_folder()):
        path = predictor_file(folder, log_name(target))
        if path is not None and path.exists():
            state = path.stat()
            try:
                return _loaded(path, log_name(target), state.st_mtime_ns, state.st_size)
            except UsageError as error:
                warnings.warn(f"{error.args[0]}", PredictorWarning, stacklevel=2)
    return None


@cache
def _loaded(path: Path, name: str, changed: int, size: int) -> Predictor:
    return load_predictor(path, name)
