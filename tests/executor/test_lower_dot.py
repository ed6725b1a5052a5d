"""Dot products of bytes against numpy, exactly, on every instruction set that this CPU has."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from tvm import te
from tvm.s_tir import Schedule

from evo_tvm.executor.codegen import assembly
from evo_tvm.executor.lower_dot import ANNOTATION
from evo_tvm.target import resolve
from tests.kernels._bytes import TARGETS, bits
from tests.kernels._run import Kernel

#: Odd, and worked on in pairs of rows: the last pair is cut off.
ROWS = 5

Fill = Callable[[np.random.Generator, tuple[int, ...], tuple[int, ...]], tuple[np.ndarray, np.ndarray]]


def constant(left: int, right: int) -> Fill:
    return lambda rng, a, b: (np.full(a, left, np.uint8), np.full(b, right, np.int8))


def alternating(rng: np.random.Generator, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of products that cancel out, where each sum of two alone does not."""
    right = np.full(b, 127, np.int8)
    right[..., 1::2] = -128
    return np.full(a, 255, np.uint8), right


def anything(rng: np.random.Generator, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, 256, a, np.uint8), rng.integers(-128, 128, b, np.int8)


def one_at_a_time(rng: np.random.Generator, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Few terms that are not zero: one in a wrong place changes the sum."""
    left, right = anything(rng, a, b)
    return np.where(rng.random(a) < 0.05, left, 0).astype(np.uint8), right


FILLS = {
    "zeros": constant(0, -128),
    "zero weights": constant(255, 0),
    "lowest": constant(255, -128),
    "highest": constant(255, 127),
    "alternating": alternating,
    "anything": anything,
    "one at a time": one_at_a_time,
}


def schedule(depth: int, width: int, transposed: bool) -> Schedule:
    """c[i, v] = sum over k, q of a[i, k, q] * b[k, v, q], or of a[i, k, q, v] * b[k, v, q] with `transposed`."""
    a = te.placeholder((ROWS, depth, 4, *([width] if transposed else [])), "uint8", "p0")
    b = te.placeholder((depth, width, 4), "int8", "p1")
    k, q = te.reduce_axis((0, depth), "k"), te.reduce_axis((0, 4), "q")

    def dot(i, v):  # type: ignore[no-untyped-def]
        left = a[i, k, q, v] if transposed else a[i, k, q]
        return te.sum(left.astype("int32") * b[k, v, q].astype("int32"), axis=[k, q])

    sch = Schedule(te.create_prim_func([a, b, bits(te.compute((ROWS, width), dot, name="sums"))]))
    sums = sch.get_sblock("sums")
    i, v, k, q = sch.get_loops(sums)
    pair, row = sch.split(i, [None, 2])
    sch.reorder(pair, k, row, v, q)
    sch.decompose_reduction(sums, k)
    sch.annotate(v, ANNOTATION, width if transposed else 1)
    return sch


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("width", [16, 8, 4, 24])
@pytest.mark.parametrize("target", TARGETS)
def test_the_sums_are_exact(target: str, width: int, transposed: bool) -> None:
    for depth in (1, 515) if width == 16 else (9,):
        kernel = Kernel(schedule(depth, width, transposed).mod["main"], resolve(target))
        rng = np.random.default_rng(depth)
        for name, fill in FILLS.items():
            left, right = fill(rng, kernel.shapes[0], kernel.shapes[1])
            subscripts = "ikqv,kvq->iv" if transposed else "ikq,kvq->iv"
            wanted = np.einsum(subscripts, left.astype(np.int64), right.astype(np.int64))
            assert np.array_equal(kernel(left, right).view(np.int32), wanted), (name, depth)


@pytest.mark.parametrize(
    ("target", "width", "instruction"),
    [
        ("cascadelake", 16, "vpdpbusd.*%zmm"),
        ("cascadelake", 8, "vpdpbusd.*%ymm"),
        ("cascadelake", 4, "vpdpbusd.*%xmm"),
        ("x86-64-v3+avxvnni", 8, "vpdpbusd.*%ymm"),
        ("x86-64-v4", 16, "vpmaddwd.*%zmm"),
        ("x86-64-v4", 8, "vpmaddwd.*%ymm"),
        ("x86-64-v3", 8, "vpmaddwd.*%ymm"),
        ("x86_64-linux-gnu", 4, "pmaddwd.*%xmm"),
    ],
)
@pytest.mark.parametrize("transposed", [False, True])
def test_the_instructions(target: str, width: int, instruction: str, transposed: bool) -> None:
    text = assembly(schedule(9, width, transposed).mod["main"], "kernel", resolve(target).tvm())
    assert re.search(instruction, text)
    assert "vpmaddubsw" not in text, "it adds pairs up in 16 bits, which 255 * 127 * 2 does not fit"


@pytest.mark.parametrize("target", ["aarch64-linux-gnu", "riscv64-linux-gnu+v"])
@pytest.mark.parametrize("transposed", [False, True])
def test_other_machines_get_plain_products(target: str, transposed: bool) -> None:
    assert "kernel" in assembly(schedule(9, 4, transposed).mod["main"], "kernel", resolve(target).tvm())
