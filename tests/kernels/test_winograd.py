"""Cook-Toom matrices in exact arithmetic, and the error that float32 adds."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from evo_tvm.kernels.winograd import F4, Transform, cook_toom, transform_weights

POINTS = [Fraction(p) for p in ("0", "1", "-1", "2", "-1/2", "3/4")]


def exact(transform: Transform) -> list[list[list[Fraction]]]:
    """B^T, G and A^T as fractions: for points that are sums of powers of two every entry but G's is exact."""
    return [[[Fraction(e) for e in row] for row in matrix] for matrix in (transform.bt, transform.g, transform.at)]


@pytest.mark.parametrize(
    ("m", "points"),
    [(2, POINTS[:3]), (3, POINTS[:4]), (4, POINTS[:5]), (5, POINTS), (4, [Fraction(p, 4) for p in (0, 3, -3, 6, -6)])],
)
def test_the_identity_holds_for_every_pair_of_basis_vectors(m: int, points: list[Fraction]) -> None:
    """A^T[(G g) * (B^T d)] is the correlation of d with g: bilinear, so unit vectors say all."""
    bt, g, at = exact(cook_toom(m, points))
    # G divides by products of differences: its floats are rounded, its fractions are these.
    g = [[Fraction(e).limit_denominator(10_000) for e in row] for row in g]
    for i, j in product(range(m + 2), range(3)):
        for row in range(m):
            total = sum(at[row][k] * g[k][j] * bt[k][i] for k in range(m + 2))
            assert total == (1 if i == row + j else 0), (i, j, row)


def test_transformed_weights_lie_where_the_kernel_looks() -> None:
    weight = np.random.default_rng(0).standard_normal((16, 5, 3, 3)).astype(np.float32)
    got = transform_weights(weight, F4, 8)
    assert got.shape == (2, 36, 5, 8) and got.dtype == np.float32
    g = np.array(F4.g)
    for o, i in ((0, 0), (9, 4), (15, 2)):
        wanted = g @ weight[o, i].astype(np.float64) @ g.T
        np.testing.assert_allclose(got[o // 8, :, i, o % 8].reshape(6, 6), wanted, rtol=1e-6, atol=1e-7)


def test_rounding_in_float32_stays_small() -> None:
    """One tile, many times: mean error of the three transforms relative to the largest result."""
    rng = np.random.default_rng(1)
    bt, g, at = (np.array(x, np.float32) for x in (F4.bt, F4.g, F4.at))
    worst = 0.0
    for _ in range(200):
        d, w = rng.standard_normal((6, 6)).astype(np.float32), rng.standard_normal((3, 3)).astype(np.float32)
        got = at @ ((g @ w @ g.T) * (bt @ d @ bt.T)) @ at.T
        d64, w64 = d.astype(np.float64), w.astype(np.float64)
        wanted = np.array([[(d64[i : i + 3, j : j + 3] * w64).sum() for j in range(4)] for i in range(4)])
        worst = max(worst, float(np.abs(got - wanted).max() / np.abs(wanted).max()))
    assert worst < 1e-5
