"""Images as calibration data: read, resized, cropped and normalised as the options say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evo_tvm._extras import needs_extra
from evo_tvm.errors import InputError, UsageError
from evo_tvm.quantize.params import Array

ENDINGS = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image: shorter side to `resize` pixels (bilinear), the middle `crop` x `crop` pixels, then
    (pixel / 255 - mean) / std, channels in `order`, axes in `layout`.

    Without `resize` and `crop` the image is stretched to the size that the model takes. mean, std: one number, or one
    for each channel, in the order red, green, blue. order: "rgb" or "bgr". layout: "nchw" or "nhwc".
    Raises UsageError: a value that cannot be.
    """

    resize: int | None = None
    crop: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    order: str = "rgb"
    layout: str = "nchw"

    def __post_init__(self) -> None:
        for name, choices in (("order", ("rgb", "bgr")), ("layout", ("nchw", "nhwc"))):
            if getattr(self, name) not in choices:
                raise UsageError("no such choice", where=name, expected=" or ".join(choices), got=getattr(self, name))
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, 3):
                raise UsageError("wrong count of numbers", where=name, expected="1 or 3", got=len(getattr(self, name)))
        if not all(value > 0 for value in self.std):
            raise UsageError("must be above zero", where="std", got=self.std)
        for name in ("resize", "crop"):
            if (getattr(self, name) or 1) < 1:
                raise UsageError("must be at least 1 pixel", where=name, got=getattr(self, name))
        if self.resize and self.crop and self.crop > self.resize:
            raise UsageError("crop is larger than resize", expected=f"at most {self.resize}", got=self.crop)

    def read(self, path: Path, shape: Sequence[int | None]) -> Array:
        """The image at `path` as float32 for an input of `shape`, batch included, whose free dimensions are None.

        The result has no batch axis. Raises InputError: not an image, or an input that takes none.
        """
        channels, height, width = self._sizes(shape)
        with needs_extra("images"):
            from PIL import Image, UnidentifiedImageError
        try:
            with Image.open(path) as opened:
                image = opened.convert("L" if channels == 1 else "RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise InputError("cannot be read as an image", where=path, hint="Use PNG or JPEG files.") from error
        bilinear = Image.Resampling.BILINEAR
        if self.resize:
            factor = self.resize / min(image.size)
            image = image.resize((round(image.width * factor), round(image.height * factor)), bilinear)
        if self.crop:
            left, top = (image.width - self.crop) // 2, (image.height - self.crop) // 2
            image = image.crop((left, top, left + self.crop, top + self.crop))
        if not self.resize and not self.crop and height and width:
            image = image.resize((width, height), bilinear)
        pixels = np.asarray(image, np.float32).reshape(image.height, image.width, channels) / 255
        pixels = (pixels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        if self.order == "bgr":
            pixels = pixels[..., ::-1]
        return np.ascontiguousarray(pixels if self.layout == "nhwc" else pixels.transpose(2, 0, 1), np.float32)

    def _sizes(self, shape: Sequence[int | None]) -> tuple[int, int | None, int | None]:
        """Channels, height and width of the input."""
        if len(shape) != 4:
            raise InputError("images fit an input of 4 dimensions", hint="Other data go into an .npz.")
        channels, height, width = shape[1:] if self.layout == "nchw" else (shape[3], shape[1], shape[2])
        channels = channels or 3
        if channels not in (1, 3):
            raise InputError(
                f"images have 1 or 3 channels, the input has {channels} in the layout {self.layout}",
                hint="Is --layout right? Other data go into an .npz.",
            )
        if channels == 1 and max(len(self.mean), len(self.std)) == 3:
            raise UsageError("three means or deviations for one channel", hint="Give one number.")
        return channels, height, width
