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
#: Of the bound of a call's cycles: for each byte that is moved, and for the call.
_BYTE_CYCLES, _CALL_CYCLES = 0.1, 500.0
_OPERATORS = tuple(sorted(ALGORITHMS))
#: Operators without a choice of algorithms that are like no other.
_FIXED = ("concat", "global_avg_pool2d", "transform")
_ALGORITHMS = tuple(sorted({name for named in ALGORITHMS.values() for name in named}))
#: Operators of an epilogue, by what they cost.
_EPILOGUE = {
    "cheap": frozenset(("add", "relu", "clip", "multiply", "subtract", "maximum", "minimum", "abs", "negative")),
    "branching": frozenset(("leaky_relu", "prelu", "hard_sigmoid", "hard_swish")),
    "dividing": frozenset(("divide", "sqrt")),
    "transcendental": frozenset(("sigmoid", "tanh", "exp", "erf", "gelu", "gelu_tanh", "silu", "log", "mish")),
    "integer": frozenset(("rescale", "quantize", "dequantize", "blend")),
}
#: Cycles that each takes for a vector. On Skylake-X a division of 16 floats occupies its unit for 10 cycles, a square
#: root for 12 (Fog, "Instruction tables"). Most functions are a polynomial and a division: 33 to 43 cycles were
#: measured of a SiLU behind convolutions, against a ReLU there.
_EPILOGUE_CYCLES = {"cheap": 0.5, "branching": 4.0, "dividing": 12.0, "transcendental": 36.0, "integer": 2.0}
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
    steady: bool = True,
) -> np.ndarray:
    """The features of each (workload, algorithm, configuration): (kernels, features), float32.

    between_bytes: what a run touches between two calls of a kernel; None: as where kernels are measured by themselves.
    steady: False of times that were taken without care for the clock (`Record.steady`).
    """
    between = between_bytes if between_bytes is not None else float(target.evicting_bytes)
    rows = [_row(workload, algorithm, config, target, num_threads, between) for workload, algorithm, config in kernels]
    found = np.array([[*row, float(steady)] for row in rows], np.float64).reshape(-1, len(FEATURE_NAMES))
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
        *_ratios(workload, algorithm, config, target, num_threads, shape, between, count).values(),
        *_plain(workload, config, target, shape).values(),
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
        "epilogue_cycles": epilogue_cycles(workload, target) / at_once,
        "tile_cycles": shape.steps * shape.accumulators / _UNITS,
        "panel_terms": _panel_terms(shape),
        "panel_cycles": _panel_terms(shape) * shape.accumulators / _UNITS,
        "rows_pixels": (getattr(config, "group_rows", 0) or shape.height) * shape.width,
        "channel_tiles": shape.blocks // shape.tile[0],
        "row_tiles": shape.height // shape.tile[1],
        "column_tiles": shape.width // shape.tile[2],
        "operands": len(workload.shapes),
        **{f"config_{name}": float(getattr(config, name, 0)) for name in _NUMBERS},
    }


def epilogue_cycles(workload: Workload, target: Target) -> float:
    """Of all that is computed element by element, on one thread."""
    found = _elementwise_cycles((workload.operator, *workload.epilogue)) * math.prod(workload.output)
    if workload.between:
        hidden = (workload.output[0], workload.shapes[0][1], *workload.output[2:])
        found += _elementwise_cycles(workload.between) * math.prod(hidden)
    return found / target.lanes_f32


def _elementwise_cycles(kinds: Iterable[str]) -> float:
    """Of a vector."""
    return sum(cycles for kind in kinds for name, cycles in _EPILOGUE_CYCLES.items() if kind in _EPILOGUE[name])


def _panel_terms(shape: Geometry) -> float:
    """Steps of the reduction before sums are put aside."""
    return shape.panel_bytes / (4.0 * shape.lanes * shape.tile[0] * shape.block_vectors)


def bound_cycles(cycles: Any, moved: Any) -> Any:
    """A bound of a call's cycles: arithmetic over all tiles and in the epilogue, every byte moved once, overlapping in
    part, and a call.

    Numbers or arrays. cycles: of arithmetic; moved: bytes.
    """
    return cycles + moved * _BYTE_CYCLES + _CALL_CYCLES


def _ratios(
    workload: Workload,
    algorithm: str,
    config: Any,
    target: Target,
    num_threads: int,
    shape: Geometry,
    between: float,
    count: int,
) -> dict[str, float]:
    at_once = speed_up(count, num_threads)
    dense = max(1.0, shape.macs / target.lanes_f32 / (4 if workload.dtype == "uint8" else 1))
    cycles = max(1.0, shape.tiled_cycles / at_once)
    arithmetic, cores = cycles * target.memory_bytes_per_cycle, min(num_threads, target.cores)
    l1, l2, l3 = target.l1_bytes, target.l2_bytes, target.l3_bytes or target.l2_bytes
    moved = shape.weight_bytes + shape.input_bytes + shape.output_bytes
    residual = math.prod(workload.output) * 4.0 * _activations(workload.epilogue)
    bound = bound_cycles(cycles + epilogue_cycles(workload, target) / at_once, moved + residual)
    again = shape.input_bytes * max(1.0, shape.blocks / shape.tile[0])
    return {
        "rule_in_bound": rule_cycles(workload, algorithm, config, target, num_threads) / bound,
        "tiled_in_bound": cycles / bound,
        "tiles_in_bound": shape.tiles / bound,
        "weights_in_bound": shape.weight_bytes / bound,
        "weights_again_in_bound": shape.weight_bytes * shape.passes / bound,
        "input_again_in_bound": again / bound,
        "output_in_bound": shape.output_bytes / bound,
        "all_again_in_bound": (shape.weight_bytes * shape.passes + again + shape.output_bytes) / bound,
        "input_in_output": shape.input_bytes / shape.output_bytes,
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


def _plain(workload: Workload, config: Any, target: Target, shape: Geometry) -> dict[str, float]:
    (o, i, j), vectors = shape.tile, shape.block_vectors
    blocks = workload.attributes.get("blocks", (0, 0))
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
        "left_vectors": float(shape.blocks % o),
        "left_rows": float(shape.height % i),
        "left_columns": float(shape.width % j),
        "block_read": float(blocks[0]),
        "block_written": float(blocks[-1]),
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
        **{f"operator_{name}": float(workload.operator == name) for name in (*_OPERATORS, *_FIXED)},
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
    rest = {**_plain(workload, None, target, shape), **_kind(workload, (), ""), **_target(target, 1), "steady": 1.0}
    return tuple(sizes), tuple(_ratios(workload, "", None, target, 1, shape, 1.0, 1)), tuple(rest)


#: A ratio of which one side is nothing.
_LEAST = 1e-4
_SIZES, _RATIOS, _REST = _names()
#: Of the vector that `features` returns, in its order.
FEATURE_NAMES: tuple[str, ...] = (*_SIZES, *_RATIOS, *_REST)
