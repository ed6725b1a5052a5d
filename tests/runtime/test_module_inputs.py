"""What a Module takes as inputs, copied only where it must be, and what it says of others."""

from __future__ import annotations

import numpy as np
import pytest

from evo_tvm.errors import InputError
from evo_tvm.runtime.module import Module
from evo_tvm.runtime.tensors import address, aligned_empty
from tests.runtime.conftest import Expected, K, X


def test_an_aligned_input_is_not_copied(mod: Module) -> None:
    x = aligned_empty((4, 16), np.dtype(np.float32))
    assert mod._input_slots[0].take(x)[0] is x


@pytest.mark.parametrize("make", [lambda x: x[:, ::-1][:, ::-1], lambda x: np.asfortranarray(x), lambda x: _at(x, 4)])
def test_other_layouts_are_copied_into_one_kept_buffer(mod: Module, make: Expected, expected: Expected) -> None:
    x = make(X)
    np.testing.assert_array_equal(mod(x, K)[0], expected(X))
    if not (x.flags.c_contiguous and address(x) % 64 == 0):
        assert mod._input_slots[0].take(x)[0] is mod._input_slots[0].take(x)[0]


def _at(x: np.ndarray, offset: int) -> np.ndarray:
    """`x` in memory that begins `offset` bytes beyond an aligned address."""
    raw = np.empty(x.nbytes + 128, np.uint8)
    start = -address(raw) % 64 + offset
    moved = raw[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    moved[...] = x
    return moved


class _Dlpack:
    """A tensor of some other library, known only by its DLPack methods."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: object) -> object:
        return self.array.__dlpack__(**options)  # type: ignore[arg-type]

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class _ArrayLike:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self.array


@pytest.mark.parametrize("kind", [_Dlpack, _ArrayLike])
def test_tensors_of_other_libraries(mod: Module, kind: type, expected: Expected) -> None:
    x = aligned_empty(X.shape, X.dtype)
    x[...] = X
    np.testing.assert_array_equal(mod(kind(x), K)[0], expected(X))
    assert mod._input_slots[0].take(kind(x))[1] == address(x)


def test_read_only_inputs_and_numpy_scalars(mod: Module, expected: Expected) -> None:
    x = X.copy()
    x.flags.writeable = False
    np.testing.assert_array_equal(mod(x, np.int64(2))[0], expected(X))


# ---- Bad inputs: each text says what was expected and what was got ----


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (X.astype(np.float64), "input 'x': wrong dtype (expected float32, got float64)"),
        (X.astype(">f4"), "input 'x': wrong dtype (expected float32, got >f4)"),
        (X[:3], "input 'x': wrong shape (expected 4x16, got 3x16)"),
        (X.reshape(-1), "input 'x': wrong shape (expected 4x16, got 64)"),
        (np.float32(1), "input 'x': wrong shape (expected 4x16, got a scalar (shape ()))"),
        ([1.0], "input 'x': expected a numpy array, or an object with __dlpack__ or __array__, got list"),
        (None, "input 'x': expected a numpy array, or an object with __dlpack__ or __array__, got NoneType"),
        (X.astype(str), "input 'x': wrong dtype (expected float32, got str"),
        (X.astype(object), "input 'x': wrong dtype (expected float32, got object)"),
    ],
)
def test_wrong_input(mod: Module, x: object, text: str) -> None:
    with pytest.raises(InputError) as error:
        mod(x, K)
    assert str(error.value).startswith(text)


def test_a_wrong_dtype_says_how_to_convert(mod: Module) -> None:
    with pytest.raises(InputError, match=r"convert it yourself: x\.astype\('float32'\)"):
        mod(X.astype(np.float64), K)


def test_a_tensor_that_dlpack_cannot_give(mod: Module) -> None:
    class Stubborn:
        def __dlpack__(self, **_: object) -> object:
            raise RuntimeError("requires grad")

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

    with pytest.raises(InputError, match="input 'x': numpy cannot take this Stubborn through DLPack: requires grad"):
        mod(Stubborn(), K)


def test_wrong_count(mod: Module) -> None:
    with pytest.raises(InputError) as error:
        mod(X)
    assert str(error.value) == ("wrong number of inputs (expected 2: x: float32[4x16], k: int64[scalar], got 1)")


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"x": X, "k": K, "z": X}, "unknown input 'z' (expected x, k, got x, k, z)"),
        ({"X": X, "k": K}, "unknown input 'X' (expected x, k, got X, k)"),
        ({"x": X}, "missing input 'k' (expected x, k, got x)"),
        ({}, "missing inputs 'x', 'k' (expected x, k, got none)"),
    ],
)
def test_wrong_names(mod: Module, inputs: dict[str, object], text: str) -> None:
    with pytest.raises(InputError) as error:
        mod.run(inputs)
    assert str(error.value) == text
