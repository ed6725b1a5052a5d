"""The polynomials against float64, over the whole range of float32."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tvm import te, tirx

from evo_tvm.executor.codegen import build_object
from evo_tvm.executor.emit import emit_c
from evo_tvm.executor.link import SUPPORT_SOURCES, link_library
from evo_tvm.executor.program import Program
from evo_tvm.runtime.tensors import address, aligned_empty
from evo_tvm.schedules import elementwise
from evo_tvm.target import host

FUNCTIONS = {"exp": tirx.exp, "log": tirx.log, "tanh": tirx.tanh, "sigmoid": tirx.sigmoid, "erf": tirx.erf}
#: float32's distance from 1 to the next number
EPS = 2.0**-23
COUNT = 4096

Apply = Callable[[str, np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def apply(tmp_path_factory: pytest.TempPathFactory) -> Apply:
    """Runs one of the functions on at most COUNT float32 numbers."""
    folder: Path = tmp_path_factory.mktemp("vector_math")
    target, objects = host(), []
    for name, function in FUNCTIONS.items():
        x = te.placeholder((COUNT,), name="x")
        y = te.compute((COUNT,), lambda i, f=function, x=x: f(x[i]), name="output")
        func = elementwise.schedule(te.create_prim_func([x, y]), target.lanes_f32).mod["main"]
        objects.append(folder / f"{name}.o")
        build_object(func, f"evo_{name}", target.tvm(), str(objects[-1]))
    main, library = folder / "model.c", folder / "model.so"
    exported = "".join(
        f'extern int32_t evo_{n}(void*, void*);\n__attribute__((visibility("default"))) int32_t test_{n}(void* x, void* y)'
        f" {{ return evo_{n}(x, y); }}\n"
        for n in FUNCTIONS
    )
    main.write_text(emit_c(Program((), b"", 64), target.triple, [], [], 0) + exported)
    link_library(objects, [main, *SUPPORT_SOURCES], library, target.triple)
    loaded = ctypes.CDLL(str(library))

    def run(name: str, values: np.ndarray) -> np.ndarray:
        x, y = aligned_empty((COUNT,), np.dtype("float32")), aligned_empty((COUNT,), np.dtype("float32"))
        x[...] = 0
        x[: values.size] = values
        assert getattr(loaded, f"test_{name}")(ctypes.c_void_p(address(x)), ctypes.c_void_p(address(y))) == 0
        return np.array(y[: values.size])

    return run


def test_exp_within_two_units_in_the_last_place(apply: Apply) -> None:
    x = np.linspace(-87, 88.7, COUNT, dtype=np.float32)
    wanted = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(apply("exp", x).astype(np.float64), wanted, rtol=2 * EPS)


def test_exp_at_its_ends(apply: Apply) -> None:
    x = np.array([0, -0.0, np.inf, -np.inf, np.nan, 88.73, 1e30, -88, -1e30, 1e-40, 88.72283], np.float32)
    np.testing.assert_allclose(
        apply("exp", x), [1, 1, np.inf, 0, np.nan, np.inf, np.inf, 0, 0, 1, np.exp(np.float64(x[-1]))], rtol=2 * EPS
    )


def test_log_within_two_units_in_the_last_place(apply: Apply) -> None:
    x = np.geomspace(1e-44, 3.4e38, COUNT).astype(np.float32)  # denormals below 1.2e-38
    wanted = np.log(x.astype(np.float64))
    np.testing.assert_allclose(apply("log", x).astype(np.float64), wanted, rtol=2 * EPS, atol=EPS / 4)
    near = np.linspace(0.5, 2, COUNT, dtype=np.float32)
    np.testing.assert_allclose(apply("log", near), np.log(near.astype(np.float64)), rtol=2 * EPS, atol=1e-9)


def test_log_at_its_ends(apply: Apply) -> None:
    x = np.array([0, -0.0, 1, np.inf, -np.inf, np.nan, -1, -1e-40], np.float32)
    got = apply("log", x)
    np.testing.assert_array_equal(got, np.array([-np.inf, -np.inf, 0, np.inf, *[np.nan] * 4], np.float32))


@pytest.mark.parametrize(("name", "limit"), [("tanh", 3), ("sigmoid", 4), ("erf", 8)])
def test_bounded_functions(apply: Apply, name: str, limit: float) -> None:
    import math

    exact = {"tanh": math.tanh, "sigmoid": lambda v: 1 / (1 + math.exp(-v)), "erf": math.erf}[name]
    for x in (np.linspace(-20, 20, COUNT, dtype=np.float32), np.linspace(-0.7, 0.7, COUNT, dtype=np.float32)):
        wanted = np.array([exact(float(v)) for v in x])
        np.testing.assert_allclose(
            apply(name, x).astype(np.float64), wanted, rtol=limit * EPS, atol=1e-9 if name != "tanh" else 0
        )


@pytest.mark.parametrize(("name", "at_zero"), [("tanh", 0), ("sigmoid", 0.5), ("erf", 0)])
def test_bounded_functions_at_their_ends(apply: Apply, name: str, at_zero: float) -> None:
    low = 0 if name == "sigmoid" else -1
    x = np.array([np.inf, 1e30, 100, -100, -1e30, -np.inf, 0, -0.0, np.nan, 1e-40], np.float32)
    got = apply(name, x)
    np.testing.assert_allclose(got, [1, 1, 1, low, low, low, at_zero, at_zero, np.nan, at_zero], atol=1e-38)
    assert np.abs(got[:6]).max() <= 1
