"""What the search believes of what it has not measured: a model of run times, learnt as the log grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evo_tvm.predict.features import features_of_many
from evo_tvm.target import Target
from evo_tvm.workload import Workload

if TYPE_CHECKING:
    import xgboost

#: Measurements before which nothing is learnt, and how many more are waited for until it is learnt anew, as a share.
_LEAST, _MORE = 8, 0.1
_PARAMETERS = {"max_depth": 6, "eta": 0.2, "subsample": 0.9, "min_child_weight": 1, "nthread": 1, "seed": 0}
_ROUNDS = 80

#: Workload, algorithm and configuration.
Point = tuple[Workload, str, Any]


class Guide:
    """Chen & Guestrin, "XGBoost: A Scalable Tree Boosting System" (KDD 2016), on logarithms of run times.

    TVM's own (Chen et al., "Learning to Optimize Tensor Programs", NeurIPS 2018) learns each time in parts of the best
    of its workload; run times themselves carry over from one workload to the next.
    """

    def __init__(self, target: Target, num_threads: int) -> None:
        self.target, self.num_threads = target, num_threads
        self._rows: list[np.ndarray] = []
        self._values: list[float] = []
        self._learnt = 0
        self._booster: xgboost.Booster | None = None

    def add(self, points: Sequence[Point], values: Sequence[float]) -> None:
        """Takes measurements into account: `values` in milliseconds, or whatever else was counted; failures are
        infinite, and teach nothing."""
        working = [i for i, value in enumerate(values) if value < float("inf")]
        if working:
            self._rows.append(self._features([points[i] for i in working]))
            self._values += [float(np.log(values[i])) for i in working]

    def predict(self, points: Sequence[Point]) -> np.ndarray | None:
        """The logarithm of each one's time; None while too little was measured. float64 (points,)."""
        import xgboost

        self._learn()
        if self._booster is None or not points:
            return None
        found: np.ndarray = self._booster.predict(xgboost.DMatrix(self._features(points), nthread=1))
        return found.astype(np.float64)

    def _features(self, points: Sequence[Point]) -> np.ndarray:
        return features_of_many(points, self.target, self.num_threads)

    def _learn(self) -> None:
        import xgboost

        count = len(self._values)
        if count < _LEAST or (count < self._learnt * (1 + _MORE) and self._booster is not None):
            return
        data = xgboost.DMatrix(np.concatenate(self._rows), np.array(self._values), nthread=1)
        self._booster = xgboost.train({**_PARAMETERS, "base_score": float(np.mean(self._values))}, data, _ROUNDS)
        self._learnt = count
