"""Calibration data from every source, streamed; and every way in which they can be wrong, with its message."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from evo_tvm.errors import EvoError, InputError, UsageError
from evo_tvm.quantize.calibration_data import CalibrationData, ModelInput, open_calibration

IMAGE = ModelInput("image", (1, 3, 4, 5), "float32")
FREE = ModelInput("image", (None, 3, 4, 5), "float32")
MASK = ModelInput("mask", (1, 7), "int64")
RNG = np.random.default_rng(0)
SAMPLES = RNG.standard_normal((10, 3, 4, 5)).astype(np.float32)


def arrays(data: CalibrationData, name: str = "image") -> list[np.ndarray]:
    return [feed[name] for feed in data]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("with_batch", [False, True])
@pytest.mark.parametrize("spec", [IMAGE, FREE], ids=str)
def test_npz(tmp_path: Path, save: object, with_batch: bool, spec: ModelInput) -> None:
    path = tmp_path / "c.npz"
    save(path, image=SAMPLES[:, None] if with_batch else SAMPLES)  # type: ignore[operator]
    data = open_calibration(path, [spec])
    assert len(data) == 10 and data.shapes == {"image": (1, 3, 4, 5)}
    for _ in range(2):  # it can be read again
        np.testing.assert_array_equal(np.concatenate(arrays(data)), SAMPLES)


def test_npz_of_any_name_where_there_is_one_array_and_one_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", SAMPLES)
    assert len(open_calibration(tmp_path / "c.npz", [IMAGE])) == 10


def test_npz_for_two_inputs(tmp_path: Path) -> None:
    masks = RNG.integers(0, 2, (10, 7))
    np.savez(tmp_path / "c.npz", mask=masks, image=SAMPLES)
    data = open_calibration(tmp_path / "c.npz", [IMAGE, MASK])
    np.testing.assert_array_equal(np.concatenate(arrays(data, "mask")), masks)
    np.testing.assert_array_equal(np.concatenate(arrays(data)), SAMPLES)


def test_fewer_samples_are_spread_evenly(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", SAMPLES)
    for count, expected in ((1, [0]), (4, [0, 2, 5, 7]), (10, range(10)), (99, range(10))):
        data = open_calibration(tmp_path / "c.npz", [IMAGE], count)
        np.testing.assert_array_equal(np.concatenate(arrays(data)), SAMPLES[list(expected)])


def test_a_fixed_batch_takes_several_samples_and_leaves_the_rest(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", SAMPLES)
    data = open_calibration(tmp_path / "c.npz", [ModelInput("image", (4, 3, 4, 5), "float32")])
    assert [array.shape for array in arrays(data)] == [(4, 3, 4, 5)] * 2
    np.testing.assert_array_equal(np.concatenate(arrays(data)), SAMPLES[:8])
    with pytest.raises(InputError, match=r"too few samples for one batch \(expected 11, got 10\)"):
        open_calibration(tmp_path / "c.npz", [ModelInput("image", (11, 3, 4, 5), "float32")])


def test_npz_is_streamed(tmp_path: Path) -> None:
    samples = np.zeros((200, 1, 64, 1024), np.float32)  # 256 kB each, 52 MB in all
    np.savez_compressed(tmp_path / "c.npz", samples)
    del samples
    data = open_calibration(tmp_path / "c.npz", [ModelInput("x", (1, 1, 64, 1024), "float32")], 20)
    tracemalloc.start()
    assert sum(1 for _ in data) == 20
    assert tracemalloc.get_traced_memory()[1] < 8e6
    tracemalloc.stop()


def test_a_folder_of_arrays(tmp_path: Path) -> None:
    for index, sample in enumerate(SAMPLES):
        np.save(tmp_path / f"{index}.npy", sample if index % 2 else sample[None].astype(np.float64))
    np.testing.assert_array_equal(np.concatenate(arrays(open_calibration(tmp_path, [IMAGE]))), SAMPLES)


@pytest.mark.parametrize("kind", ["list", "generator", "dicts"])
def test_an_iterable_is_read_once_and_can_be_used_again(kind: str) -> None:
    reads = []

    def generator() -> Iterator[np.ndarray]:
        for sample in SAMPLES:
            reads.append(1)
            yield sample

    source = {"list": list(SAMPLES), "generator": generator(), "dicts": [{"image": s[None]} for s in SAMPLES]}[kind]
    data = open_calibration(source, [FREE], 6)  # type: ignore[arg-type]
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate(arrays(data)), SAMPLES[:6])
    assert len(reads) == (6 if kind == "generator" else 0)


def test_a_scalar_input_and_names_that_numpy_uses_itself() -> None:
    specs = [ModelInput("file", (), "float32"), ModelInput("allow_pickle", (2,), "float32")]
    feeds = [{"file": np.float32(3), "allow_pickle": np.float32([1, 2])}]
    found = next(iter(open_calibration(feeds, specs)))
    assert found["file"].shape == () and found["allow_pickle"].tolist() == [1, 2]


def bad(*samples: object, inputs: tuple[ModelInput, ...] = (IMAGE,)) -> str:
    """The message for an iterable of these samples."""
    with pytest.raises(InputError) as caught:
        list(open_calibration(iter(samples), inputs))  # type: ignore[arg-type]
    return str(caught.value)


def test_bad_samples() -> None:
    good = SAMPLES[0]
    assert bad() == "the calibration data: there are no calibration samples\nGive at least one."
    assert bad({"imag": good}) == (
        "the calibration data, sample 0: the model has no input 'imag'\nDid you mean 'image'?"
    )
    assert bad({"image": good}, inputs=(IMAGE, MASK)).startswith(
        "the calibration data, sample 0: no data for input 'mask'\nIt takes int64[1x7]."
    )
    assert "one array for several inputs\nGive dicts with image, mask." in bad(good, inputs=(IMAGE, MASK))
    assert bad(good, good[:, :, :4]).startswith(
        "the calibration data, sample 1, input 'image': wrong shape (expected float32[1x3x4x5], got 1x3x4x4)\n"
    )
    assert "wrong shape (expected float32[1x3x4x5], got 4x5)" in bad(good[0])
    assert bad((good * 255).astype(np.uint8)) == (
        "the calibration data, sample 0, input 'image': wrong dtype (expected float32, got uint8)\n"
        "Scale and normalise it as the model expects it."
    )
    for value, text in ((np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")):
        wrong = good.copy()
        wrong[1, 2, 3] = value
        where = "the calibration data, sample 2, input 'image'"
        assert bad(good, good, wrong) == f"{where}: {text} among the values\nLeave this sample out, or repair it."
    assert "float32, got int64" in bad(np.zeros((3, 4, 5), int))
    assert "not an array of numbers" in bad(np.array([object()]))
    loose = ModelInput("image", (None, 3, None, None), "float32")
    assert "samples differ in shape (expected 1x3x4x5, got 1x3x4x4)" in bad(good, good[:, :, :4], inputs=(loose,))


def test_bad_files(tmp_path: Path) -> None:
    def message(name: str, inputs: tuple[ModelInput, ...] = (IMAGE,), samples: int | None = None) -> str:
        with pytest.raises(EvoError) as caught:
            list(open_calibration(tmp_path / name, inputs, samples))
        return str(caught.value).replace(f"{tmp_path}/", "")

    assert message("none.npz") == "none.npz: no such file\nCheck the path of the calibration data."
    (tmp_path / "text.npz").write_text("hello")
    assert message("text.npz").startswith("text.npz: cannot be read as .npz\nWrite it with numpy.savez(")
    np.savez(tmp_path / "two.npz", images=SAMPLES, scores=np.zeros(10))
    assert message("two.npz").startswith("two.npz, sample 0: the model has no input 'images'\nDid you mean 'image'?")
    np.savez(tmp_path / "uneven.npz", image=SAMPLES, mask=np.zeros((9, 7), np.int64))
    assert (
        message("uneven.npz", (IMAGE, MASK))
        == "uneven.npz: the arrays have different numbers of samples: image 10, mask 9"
    )
    np.savez(tmp_path / "empty.npz", image=SAMPLES[:0])
    assert message("empty.npz") == "empty.npz: there are no calibration samples\nGive at least one."
    np.savez(tmp_path / "scalar.npz", image=np.float32(1))
    assert message("scalar.npz") == "scalar.npz, array 'image': is one number, not samples"
    np.savez(tmp_path / "fortran.npz", image=np.asfortranarray(SAMPLES))
    assert "fortran.npz, array 'image': is stored column by column" in message("fortran.npz")
    np.savez(tmp_path / "objects.npz", image=np.array([{}] * 10))
    assert message("objects.npz") == "objects.npz, array 'image': holds Python objects, not numbers"
    whole = (tmp_path / "two.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    assert message("cut.npz").startswith("cut.npz: cannot be read as .npz")
    (tmp_path / "folder").mkdir()
    assert (
        message("folder")
        == "folder: the folder has no calibration data\nPut .npy files, or .png or .jpg images into it."
    )
    (tmp_path / "folder/a.npy").write_text("no array")
    assert message("folder") == "folder/a.npy: cannot be read as .npy\nWrite it with numpy.save."
    assert (
        message("folder", (IMAGE, MASK)) == "folder: a folder fits a model of one input\nUse an .npz with image, mask."
    )
    (tmp_path / "folder/b.png").write_text("no image")
    assert message("folder") == "folder: the folder has both arrays and images\nKeep one kind."
    with pytest.raises(UsageError, match=r"samples: there must be a sample \(expected at least 1, got 0\)"):
        open_calibration(tmp_path / "two.npz", [IMAGE], 0)


def test_few_is_a_part_of_the_same_data() -> None:
    data = open_calibration(list(SAMPLES), [IMAGE])
    np.testing.assert_array_equal(np.concatenate(arrays(data.few(2))), SAMPLES[[0, 5]])
    assert len(data.few(100)) == 10
    half = open_calibration(list(SAMPLES), [IMAGE], 5)
    np.testing.assert_array_equal(np.concatenate(arrays(half.few(2))), SAMPLES[[0, 2]])
