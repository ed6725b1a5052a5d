"""The network of the predictor."""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace

import numpy as np
import pytest

from evo_tvm.predict.network import Network, _gradients, fit_network, load_network, network_text

RNG = np.random.default_rng(0)


def surface(rows: np.ndarray) -> np.ndarray:
    """Smooth, of products of features."""
    found: np.ndarray = 0.3 * rows[:, 0] * rows[:, 1] + np.sin(rows[:, 2]) + 5
    return found


@pytest.fixture(scope="module")
def made() -> tuple[Network, np.ndarray]:
    rows = RNG.normal(size=(3000, 6)).astype(np.float32)
    rows[:, 5] = 7  # says nothing
    return fit_network(rows, surface(rows), np.ones(len(rows)), seed=1), rows


def test_it_learns_a_smooth_surface(made: tuple[Network, np.ndarray]) -> None:
    others = RNG.normal(size=(500, 6)).astype(np.float32)
    others[:, 5] = 9  # of another CPU, say
    assert np.abs(made[0].predict(others) - surface(others)).mean() < 0.05


def test_the_same_seed_gives_the_same(made: tuple[Network, np.ndarray]) -> None:
    rows = made[1][:600]
    first, second, other = (fit_network(rows, surface(rows), np.ones(600), seed, 2).predict(rows) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 1e-3


def test_what_counts_more_is_learnt_better() -> None:
    rows = np.ones((400, 2), np.float32)
    labels = np.repeat([0.0, 1.0], 200)
    found = fit_network(rows, labels, np.where(labels > 0, 9.0, 1.0), seed=0)
    assert found.predict(rows[:1])[0] > 0.9


def test_written_and_read(made: tuple[Network, np.ndarray]) -> None:
    network, rows = made
    np.testing.assert_allclose(load_network(network_text(network)).predict(rows), network.predict(rows), atol=0.01)


@pytest.mark.parametrize("text", ["no base64", base64.b64encode(b"no zlib").decode(), "", "eJwDAAAAAAE="])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        load_network(text)


def test_layers_that_do_not_fit_are_refused(made: tuple[Network, np.ndarray]) -> None:
    network = made[0]
    bare = replace(network, weights=(), biases=())
    short = replace(network, mean=network.mean[:4], deviation=network.deviation[:4])
    for wrong in (bare, short, replace(network, weights=network.weights[:-1], biases=network.biases[:-1])):
        with pytest.raises(ValueError, match="do not fit"):
            load_network(network_text(wrong))


@pytest.mark.parametrize("content", [b"\x80\x04N.", b"", b"PK\x03\x04 cut short"])
def test_other_contents_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        load_network(base64.b64encode(zlib.compress(content)).decode())


def test_few_examples_are_learnt(made: tuple[Network, np.ndarray]) -> None:
    rows = made[1][:200]
    found = fit_network(rows, surface(rows), np.ones(200), seed=0)
    others = made[1][200:400]
    assert np.abs(found.predict(others) - surface(others)).mean() < 0.6 * surface(others).std()


def test_gradients_are_those_of_finite_differences() -> None:
    rng = np.random.default_rng(2)
    shapes = ((3, 4), (4,), (4, 4), (4,), (4, 1), (1,))
    parameters = [rng.normal(size=shape) for shape in shapes]
    x, y, counts = rng.normal(size=(5, 3)), rng.normal(size=5), rng.uniform(0.5, 2, 5)

    def loss() -> float:
        h = x
        for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
            z = h @ weight + bias
            h = z / (1 + np.exp(-z))
        error = (h @ parameters[-2] + parameters[-1])[:, 0] - y
        return float((counts * np.sqrt(0.3**2 + error**2)).mean())

    for parameter, gradient in zip(parameters, _gradients(parameters, x, y, counts, 0.3), strict=True):
        for at in np.ndindex(parameter.shape):
            kept = parameter[at]
            parameter[at] = kept + 1e-5
            above = loss()
            parameter[at] = kept - 1e-5
            below = loss()
            parameter[at] = kept
            assert gradient[at] == pytest.approx((above - below) / 2e-5, abs=1e-4)
