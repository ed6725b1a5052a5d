from __future__ import annotations

import numpy as np
import pytest

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.decide import config_fields
from evo_tvm.predict.features import FEATURE_NAMES, features, features_of_many, rule_cycles
from evo_tvm.predict.geometry import geometry_of
from evo_tvm.target import resolve
from evo_tvm.workload import Workload
from tests.predict.examples import TARGET, convolution
from tests.tune.workloads import CONV, DENSE, MATMUL, POOL


def feature(workload: Workload, algorithm: str, config: object, name: str, threads: int = 1, target: str = "") -> float:
    row = features(workload, algorithm, config, resolve(target) if target else TARGET, threads)
    return float(row[FEATURE_NAMES.index(name)])


def test_every_algorithm_has_finite_features() -> None:
    seen = 0
    for workload in (CONV, DENSE, POOL, MATMUL):
        for name, algorithm in ALGORITHMS[workload.operator].items():
            if algorithm.refusal(workload, TARGET) is None:
                row = features(workload, name, algorithm.default(workload, TARGET, 1), TARGET, 1)
                assert row.dtype == np.float32 and row.shape == (len(FEATURE_NAMES),) and np.isfinite(row).all()
                seen += 1
    assert seen >= 6


def test_kernels_without_algorithms_have_features_too() -> None:
    for workload in (Workload("softmax", ((1, 1000),), (1, 1000)), Workload("add", ((), ()), ())):
        row = features(workload, "default", None, TARGET)
        assert np.isfinite(row).all()


def test_a_configuration_from_a_log_is_the_same() -> None:
    workload = convolution(64, 28)
    config = ALGORITHMS["conv2d"]["spatial_pack"].default(workload, TARGET, 1)
    typed, logged = (features(workload, "spatial_pack", c, TARGET) for c in (config, dict(config_fields(config))))
    assert np.array_equal(typed, logged)


def test_equal_workloads_with_other_epilogues_differ() -> None:
    plain, residual = (
        Workload(w.operator, w.shapes, w.output, w.attrs, w.dtype, epilogue)
        for w in [convolution(64, 28)]
        for epilogue in (("add",), ("add", "add", "relu"))
    )
    config = ALGORITHMS["conv2d"]["spatial_pack"].default(plain, TARGET, 1)
    rows = features_of_many([(w, "spatial_pack", config) for w in (plain, residual)], TARGET)
    activations = FEATURE_NAMES.index("epilogue_activations")
    assert rows[:, activations].tolist() == [0.0, 1.0]
    assert rows[1, FEATURE_NAMES.index("residual_bytes")] > rows[0, FEATURE_NAMES.index("residual_bytes")] == 0


def test_no_feature_names_the_device() -> None:
    workload = convolution(64, 28)
    config = ALGORITHMS["conv2d"]["spatial_pack"].default(workload, TARGET, 1)
    from dataclasses import replace

    renamed = replace(TARGET, name="other", cpu="other")
    assert np.array_equal(
        features(workload, "spatial_pack", config, renamed), features(workload, "spatial_pack", config, TARGET)
    )


@pytest.mark.parametrize(("channels", "macs"), [(64, 64 * 64 * 9 * 28 * 28), (60, 60 * 60 * 9 * 28 * 28)])
def test_idle_lanes_are_counted(channels: int, macs: int) -> None:
    workload = convolution(channels, 28)
    config = ALGORITHMS["conv2d"]["spatial_pack"].default(workload, TARGET, 1)
    shape = geometry_of(workload, "spatial_pack", config, TARGET)
    assert shape.macs == macs
    assert shape.vector_steps * 16 == 64 * channels * 9 * 28 * 28 if channels == 64 else shape.vector_steps * 16 > macs


def test_tiles_that_do_not_divide_the_image_waste() -> None:
    workload = convolution(64, 28)
    config_type = ALGORITHMS["conv2d"]["spatial_pack"].config_type
    even, odd = (feature(workload, "spatial_pack", config_type(2, 1, width), "edge_columns") for width in (14, 13))
    assert even == 0 < odd
    even, odd = (feature(workload, "spatial_pack", config_type(2, 1, width), "tile_waste") for width in (14, 9))
    assert even < odd


def test_what_carries_over_is_a_ratio() -> None:
    workload = convolution(64, 28)
    config = ALGORITHMS["conv2d"]["spatial_pack"].config_type(2, 1, 7)
    wide, narrow = (feature(workload, "spatial_pack", config, "vector_cycles", target=t) for t in ("", "x86-64-v3"))
    assert narrow == pytest.approx(wide + 1, abs=0.01)  # half the lanes, twice the vectors


def test_threads_have_tiles_to_share() -> None:
    workload = convolution(16, 7)
    config = ALGORITHMS["conv2d"]["spatial_pack"].config_type(1, 7, 7)
    one, two = (feature(workload, "spatial_pack", config, "slack", threads) for threads in (1, 2))
    assert (one, two) == (0.0, 1.0)  # one tile: the other thread has nothing to do


def test_the_rule_of_kernels_without_algorithms_moves_their_bytes() -> None:
    small, large = (Workload("add", ((1, c), (1, c)), (1, c)) for c in (1000, 4000))
    assert rule_cycles(large, "default", None, TARGET) == pytest.approx(4 * rule_cycles(small, "default", None, TARGET))
