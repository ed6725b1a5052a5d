"""The polynomials against float64, over the whole range of float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import evo_tvm
from tests.onnx_builder import Builder

FUNCTIONS = ("Exp", "Log", "Tanh", "Sigmoid", "Erf")
#: float32's distance from 1 to the next number
EPS = 2.0**-23
COUNT = 4099  # a prime: whole vectors and a tail

Apply = Callable[[str, np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def apply() -> Iterator[Apply]:
    """Runs one of the functions on at most COUNT float32 numbers."""
    b = Builder()
    x = b.input(COUNT)
    b.outputs = [b.node(function, x) for function in FUNCTIONS]
    with evo_tvm.compile(b.model()).module() as module:

        def run(name: str, values: np.ndarray) -> np.ndarray:
            padded = np.zeros(COUNT, np.float32)
            padded[: values.size] = values
            return np.array(module(padded)[FUNCTIONS.index(name.capitalize())][: values.size])

        yield run


def test_exp_within_two_units_in_the_last_place(apply: Apply) -> None:
    x = np.linspace(-86.9, 88.7, COUNT, dtype=np.float32)
    wanted = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(apply("exp", x).astype(np.float64), wanted, rtol=2 * EPS)


def test_exp_at_its_ends(apply: Apply) -> None:
    x = np.array([0, -0.0, np.inf, -np.inf, np.nan, 88.73, 1e30, -88, -1e30, 1e-40, 88.7], np.float32)
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
    exact = {"tanh": math.tanh, "sigmoid": lambda v: 1 / (1 + math.exp(-v)), "erf": math.erf}[name]
    for x in (np.linspace(-20, 20, COUNT, dtype=np.float32), np.linspace(-0.7, 0.7, COUNT, dtype=np.float32)):
        wanted = np.array([exact(float(v)) for v in x])
        got = apply(name, x).astype(np.float64)
        np.testing.assert_allclose(got, wanted, rtol=limit * EPS, atol=0 if name == "tanh" else 1e-9)


@pytest.mark.parametrize(("name", "at_zero"), [("tanh", 0), ("sigmoid", 0.5), ("erf", 0)])
def test_bounded_functions_at_their_ends(apply: Apply, name: str, at_zero: float) -> None:
    low = 0 if name == "sigmoid" else -1
    x = np.array([np.inf, 1e30, 100, -100, -1e30, -np.inf, 0, -0.0, np.nan, 1e-40], np.float32)
    got = apply(name, x)
    np.testing.assert_allclose(got, [1, 1, 1, low, low, low, at_zero, at_zero, np.nan, at_zero], atol=1e-38)
    assert np.abs(got[:6]).max() <= 1
