"""(workload, algorithm, configuration, target, threads) => what a predictor of its time is told.

It is the only extractor there is: for training, for prediction and for the search.

Sizes are logarithms, and of memory their ratios to the caches, so that what is learnt carries over to other CPUs, which
no feature names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.predict.geometry import Geometry, geometry_of
from evo_tvm.predict.shares import shares, speed_up
from evo_tvm.target import Target, make_target
from evo_tvm.workload import Workload

#: Vector multiply-adds that a core begins in a cycle.
_UNITS = 2.0
_OPERATORS = tuple(sorted(ALGORITHMS))
_ALGORITHMS = tuple(sorted({name for named in ALGORITHMS.values() for name in named}))
#: Operators of an epilogue, by what they cost.
_EPILOGUE = {
    "cheap": frozenset(("add", "relu", "clip", "multiply", "subtract", "maximum", "minimum", "abs", "negative")),
    "branching": frozenset(("leaky_relu", "prelu", "hard_sigmoid", "hard_swish", "divide", "sqrt")),
    "transcendental": frozenset(("sigmoid", "tanh", "exp", "erf", "gelu", "gelu_tanh", "silu", "log", "mish")),
    "integer": frozenset(("rescale", "quantize", "dequantize", "blend")),
}
_SWITCHES = ("prefetch", "depth_outer", "by_channels")
_NUMBERS = ("group_rows", "depth_chunk", "rows", "strip", "tiles", "unroll")
#: Instructions that multiply bytes and add them up, the quickest first, under LLVM's names.
_DOT = ("avx512vnni", "avxvnni", "i8mm", "dotprod")


def features(workload: Workload, algorithm: str, config: Any, target: Target, num_threads: int = 1) -> np.ndarray:
    """A float32 vector of `FEATURE_NAMES`. config: the algorithm's, or its fields in a dict, as logs have them."""
    row: np.ndarray = features_of_many([(workload, algorithm, config)], target, num_threads)[0]
    return row


def features_of_many(
    kernels: Iterable[tuple[Workload, str, Any]],
    target: Target,
    num_threads: int = 1,
    between_bytes: float | None = None,
) -> np.ndarray:
    """The features of each (workload, algorithm, configuration): (kernels, features), float32.

    between_bytes: what a run touches between two calls of a kernel; None: all caches, as where kernels are measured by
    themselves.
    """
    between = between_bytes if between_bytes is not None else 2.0 * max(target.l3_bytes, target.l2_bytes)
    rows = [_row(workload, algorithm, config, target, num_threads, between) for workload, algorithm, config in kernels]
    found = np.array(rows, np.float64).reshape(-1, len(FEATURE_NAMES))
    sizes, ratios = slice(0, len(_SIZES)), slice(len(_SIZES), len(_SIZES) + len(_RATIOS))
    found[:, sizes] = np.log2(found[:, sizes] + 1)
    found[:, ratios] = np.log2(np.clip(found[:, ratios], _LEAST, 1 / _LEAST))
    return found.astype(np.float32)


def kind_of(workload: Workload, algorithm: str) -> str:
    """What a predictor knows, or does not: kernels of one operator and algorithm that compute with one dtype."""
    return f"{workload.operator}/{algorithm}/{workload.dtype}"


def typed_config(workload: Workload, algorithm: str, config: Any) -> Any:
    """A configuration from its fields; anything else as it is."""
    found = ALGORITHMS.get(workload.operator, {}).get(algorithm)
    return found.config_type(**config) if found is not None and isinstance(config, dict) else config


def rule_cycles(workload: Workload, algorithm: str, config: Any, target: Target, num_threads: int = 1) -> float:
    """The analytic estimate of a call's cycles: the algorithm's own, else that of passing over all bytes once."""
    found = ALGORITHMS.get(workload.operator, {}).get(algorithm)
    if found is None:
        shape = geometry_of(workload, algorithm, config, target)
        moved = (shape.input_bytes + shape.output_bytes) / target.memory_bytes_per_cycle
        return max(shape.vector_steps, moved) / num_threads
    config = typed_config(workload, algorithm, config)
    cycles = found.cycles(workload, config, target, num_threads)
    return cycles + found.border_cycles(workload, config, target)


def touched_bytes(kernels: Iterable[tuple[Workload, str, Any]], target: Target) -> float:
    """What a run of all these kernels touches: weights, and every result once."""
    shapes = [geometry_of(workload, algorithm, config, target) for workload, algorithm, config in kernels]
    return sum(shape.weight_bytes + shape.output_bytes for shape in shapes)


def _row(
    workload: Workload, algorithm: str, config: Any, target: Target, num_threads: int, between: float
) -> list[float]:
    """Sizes and ratios, of which logarithms are to be taken, and plain numbers."""
    config = typed_config(workload, algorithm, config)
    shape = geometry_of(workload, algorithm, config, target)
    count = shares(workload, algorithm, config, shape, target)
    return [
        *_sizes(workload, algorithm, config, target, num_threads, shape, count).values(),
        *_ratios(workload, target, num_threads, shape, between, count).values(),
        *_plain(config, target, shape).values(),
        *_kind(workload, workload.epilogue, algorithm).values(),
        *_target(target, num_threads).values(),
    ]


def _sizes(
    workload: Workload, algorithm: str, config: Any, target: Target, num_threads: int, shape: Geometry, count: int
) -> dict[str, float]:
    at_once = speed_up(count, num_threads)
    residual = math.prod(workload.output) * 4.0 * _activations(workload.epilogue)
    return {
        "macs": shape.macs,
        "vector_cycles": shape.vector_steps / _UNITS / at_once,
        "tiled_cycles": shape.tiled_cycles / at_once,
        "rule_cycles": rule_cycles(workload, algorithm, config, target, num_threads),
        "steps": shape.steps,
        "images": shape.images,
        "pixels": shape.height * shape.width,
        "height": shape.height,
        "width": shape.width,
        "channels_in": workload.shapes[0][1] if workload.shapes and len(workload.shapes[0]) > 1 else 1,
        "vectors_out": shape.blocks * shape.block_vectors,
        "weights_bytes": shape.weight_bytes,
        "input_bytes": shape.input_bytes,
        "output_bytes": shape.output_bytes,
        "panel_bytes": shape.panel_bytes,
        "rows_bytes": shape.rows_bytes,
        "all_bytes": shape.weight_bytes + shape.input_bytes + shape.output_bytes + residual,
        "residual_bytes": residual,
        "weights_read": shape.weight_bytes * shape.passes,
        "passes": shape.passes,
        "tiles": shape.tiles,
        "shares": count,
        "tile_cycles": shape.steps * shape.accumulators / _UNITS,
        **{f"config_{name}": float(getattr(config, name, 0)) for name in _NUMBERS},
    }


def _ratios(
    workload: Workload, target: Target, num_threads: int, shape: Geometry, between: float, count: int
) -> dict[str, float]:
    at_once = speed_up(count, num_threads)
    dense = max(1.0, shape.macs / target.lanes_f32 / (4 if workload.dtype == "uint8" else 1))
    cycles = max(1.0, shape.tiled_cycles / at_once)
    arithmetic, cores = cycles * target.memory_bytes_per_cycle, min(num_threads, target.cores)
    l1, l2, l3 = target.l1_bytes, target.l2_bytes, target.l3_bytes or target.l2_bytes
    moved = shape.weight_bytes + shape.input_bytes + shape.output_bytes
    residual = math.prod(workload.output) * 4.0 * _activations(workload.epilogue)
    return {
        "idle_lanes": shape.vector_steps / dense,
        "tile_waste": shape.tiled_cycles * _UNITS / max(1.0, shape.vector_steps),
        "intensity": shape.macs / max(1.0, moved),
        "weights_in_l1": shape.weight_bytes / l1,
        "weights_in_l2": shape.weight_bytes / l2,
        "weights_in_l3": shape.weight_bytes / l3,
        "input_in_l1": shape.input_bytes / l1,
        "input_in_l2": shape.input_bytes / l2,
        "output_in_l2": shape.output_bytes / l2,
        "panel_in_l1": shape.panel_bytes / l1,
        "panel_in_l2": shape.panel_bytes / l2,
        "rows_in_l1": shape.rows_bytes / l1,
        "rows_in_l2": shape.rows_bytes / l2,
        "all_in_l2": moved / l2 / cores,
        "all_in_l3": moved / l3,
        "weights_share": shape.weight_bytes / arithmetic,
        "again_share": shape.weight_bytes * shape.passes / arithmetic,
        "input_share": shape.input_bytes / arithmetic,
        "output_share": (shape.output_bytes + residual) / arithmetic,
        "between_in_l2": between / l2,
        "between_in_l3": between / l3,
        "at_once": at_once,
        "slack": num_threads / at_once,
    }


def _plain(config: Any, target: Target, shape: Geometry) -> dict[str, float]:
    (o, i, j), vectors = shape.tile, shape.block_vectors
    return {
        "tile_vectors": float(o * vectors),
        "tile_rows": float(i),
        "tile_columns": float(j),
        "accumulators": float(shape.accumulators),
        "registers": (shape.accumulators + o * vectors + 1) / target.vector_registers,
        "loads": (o * vectors + i * j) / max(1, shape.accumulators),
        "edge_vectors": shape.blocks % o / shape.blocks,
        "edge_rows": shape.height % i / shape.height,
        "edge_columns": shape.width % j / shape.width,
        "taps": float(shape.taps),
        "stride": float(shape.stride),
        **{f"switch_{name}": float(getattr(config, name, False)) for name in _SWITCHES},
    }


@lru_cache(maxsize=4096)
def _kind(workload: Workload, epilogue: tuple[str, ...], algorithm: str) -> Mapping[str, float]:
    """epilogue: the workload's, which two that are equal need not share."""
    known = frozenset[str]().union(*_EPILOGUE.values())
    return {
        **{f"epilogue_{name}": float(sum(kind in group for kind in epilogue)) for name, group in _EPILOGUE.items()},
        "epilogue_other": float(sum(kind not in known for kind in epilogue)),
        "epilogue_activations": float(_activations(epilogue)),
        "bytes_computed": float(workload.dtype in ("uint8", "int8")),
        **{f"operator_{name}": float(workload.operator == name) for name in _OPERATORS},
        **{f"algorithm_{name}": float(algorithm == name) for name in _ALGORITHMS},
    }


def _activations(epilogue: tuple[str, ...]) -> int:
    """Tensors as large as the result that the epilogue reads: each addition after the first, which is a bias."""
    return max(0, epilogue.count("add") - 1) + epilogue.count("blend")


@lru_cache(maxsize=64)
def _target(target: Target, num_threads: int) -> Mapping[str, float]:
    return {
        "dot": float(next((rank for rank, name in enumerate(_DOT) if target.has(name)), len(_DOT))),
        "threads": float(num_threads),
        "lanes": float(target.lanes_f32),
        "vector_registers": float(target.vector_registers),
        "l1": math.log2(target.l1_bytes + 1),
        "l2": math.log2(target.l2_bytes + 1),
        "l3": math.log2(target.l3_bytes + 1),
        "clock": target.clock_hz / 1e9,
    }


def _names() -> tuple[tuple[str, ...], ...]:
    """Of the sizes, of the ratios, and of the rest."""
    workload, target = Workload("add", ((1, 1), (1, 1)), (1, 1)), make_target("any", "x86_64-linux-gnu")
    shape = geometry_of(workload, "", None, target)
    sizes = _sizes(workload, "", None, target, 1, shape, 1)
    rest = {**_plain(None, target, shape), **_kind(workload, (), ""), **_target(target, 1)}
    return tuple(sizes), tuple(_ratios(workload, target, 1, shape, 1.0, 1)), tuple(rest)


#: A ratio of which one side is nothing.
_LEAST = 1e-4
_SIZES, _RATIOS, _REST = _names()
#: Of the vector that `features` returns, in its order.
FEATURE_NAMES: tuple[str, ...] = (*_SIZES, *_RATIOS, *_REST)
