"""Images become inputs as the options say: checked against plain numpy where nothing is resampled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evo_tvm.errors import EvoError
from evo_tvm.quantize.calibration_data import ModelInput, open_calibration
from evo_tvm.quantize.calibration_images import Preprocessing

Image = pytest.importorskip("PIL.Image")
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.fromarray(PIXELS).save(tmp_path / "b.png")
    Image.fromarray(PIXELS[::-1]).save(tmp_path / "a.png")
    return tmp_path


def test_normalised_pixels(folder: Path) -> None:
    spec = ModelInput("x", (None, 3, 8, 10), "float32")
    found = [feed["x"] for feed in open_calibration(folder, [spec], preprocessing=Preprocessing(mean=MEAN, std=STD))]
    expected = (PIXELS.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    np.testing.assert_allclose(found[1][0], expected.transpose(2, 0, 1), rtol=1e-6)
    np.testing.assert_allclose(found[0][0], expected[::-1].transpose(2, 0, 1), rtol=1e-6)  # by name


def test_order_layout_and_crop(folder: Path) -> None:
    options = Preprocessing(crop=4, order="bgr", layout="nhwc")
    found = options.read(folder / "b.png", (1, 4, 4, 3))
    np.testing.assert_allclose(found, PIXELS[2:6, 3:7, ::-1].astype(np.float32) / 255, rtol=1e-6)
    assert found.dtype == np.float32 and found.flags.c_contiguous


def test_resize_is_of_the_shorter_side_and_stretches_where_nothing_is_said(folder: Path) -> None:
    assert Preprocessing(resize=16).read(folder / "b.png", (1, 3, None, None)).shape == (3, 16, 20)
    assert Preprocessing(resize=16, crop=12).read(folder / "b.png", (1, 3, 12, 12)).shape == (3, 12, 12)
    assert Preprocessing().read(folder / "b.png", (1, 3, 5, 7)).shape == (3, 5, 7)
    flat = np.full((8, 10, 3), 51, np.uint8)
    Image.fromarray(flat).save(folder / "flat.png")
    np.testing.assert_allclose(Preprocessing(resize=5, crop=3).read(folder / "flat.png", (1, 3, 3, 3)), 0.2, rtol=1e-6)


def test_gray(folder: Path) -> None:
    gray = Preprocessing(mean=(0.5,), std=(0.25,)).read(folder / "b.png", (1, 1, 8, 10))
    expected = (np.asarray(Image.fromarray(PIXELS).convert("L"), np.float32) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(gray[0], expected, rtol=1e-5, atol=1e-6)


def test_wrong_options_and_files(folder: Path) -> None:
    def message(spec: tuple[int | None, ...], **options: object) -> str:
        with pytest.raises(EvoError) as caught:
            data = open_calibration(
                folder,
                [ModelInput("x", spec, "float32")],
                preprocessing=Preprocessing(**options),  # type: ignore[arg-type]
            )
            list(data)
        return str(caught.value).replace(f"{folder}/", "")

    good = (1, 3, 8, 10)
    assert message(good, crop=9, resize=8) == "crop is larger than resize (expected at most 8, got 9)"
    assert message(good, order="gbr") == "order: no such choice (expected rgb or bgr, got gbr)"
    assert message(good, mean=(1.0, 2.0)) == "mean: wrong count of numbers (expected 1 or 3, got 2)"
    assert message(good, std=(1.0, 0.0, 1.0)).startswith("std: must be above zero")
    assert message((1, 1, 8, 10), mean=MEAN) == "three means or deviations for one channel\nGive one number."
    assert message((1, 3)) == "images fit an input of 4 dimensions\nOther data go into an .npz."
    assert message((1, 8, 10, 3)).startswith("images have 1 or 3 channels, the input has 8 in the layout nchw\n")
    assert "wrong shape (expected float32[1x3x8x10], got 1x3x6x6)" in message(good, crop=6)
    (folder / "c.jpg").write_text("no image")
    assert message(good) == "c.jpg: cannot be read as an image\nUse PNG or JPEG files."
