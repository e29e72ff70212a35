"""From any image to the square one a network trains on: crop, stretch or letter-box, then an exact area average."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.prepare.options import FILTERS, TRANSFORMS
from ambient_train.data.resize import area_resize


@dataclass(frozen=True)
class Geometry:
    """What to do with the shape of an image.

    none: leave it, it must be square and even. resize: stretch to width x width. center-crop: the largest centred
    square, then resize. center-crop-wide: the largest centred part of aspect width : height, resized to that and set
    between black bars to width x width (float images, too: black is -1). filter: `area` averages areas exactly;
    `lanczos` is Pillow's, as EDM's and StyleGAN's tools resize, for uint8 images, and may vary with Pillow's version.
    """

    transform: str
    width: int | None = None
    height: int | None = None
    filter: str = "area"

    def __post_init__(self) -> None:
        if self.transform not in TRANSFORMS:
            raise UsageError(f"transform {self.transform!r} is not one of {', '.join(TRANSFORMS)}")
        if self.filter not in FILTERS:
            raise UsageError(f"filter {self.filter!r} is not one of {', '.join(FILTERS)}")
        if (self.transform == "none") != (self.width is None):
            raise UsageError("a resolution and a transform (center-crop, center-crop-wide or resize) go together")
        if self.width is not None and (self.width < 2 or self.width % 2 or self.width > 4096):
            raise UsageError(f"resolution must be an even number of pixels from 2 to 4096, not {self.width}")
        if self.transform == "center-crop-wide":
            if self.width is None or self.height is None or not 1 <= self.height <= self.width:
                raise UsageError("center-crop-wide needs a resolution WIDTHxHEIGHT with HEIGHT <= WIDTH, as in 64x48")
        elif self.height is not None and self.height != self.width:
            raise UsageError(f"resolution {self.width}x{self.height} is not square; only center-crop-wide takes that")

    @classmethod
    def parse(cls, transform: str | None, resolution: str | int | None, filter: str = "area") -> Geometry:
        """From command-line words: a resolution such as `64` or `64x48`; with one, the default is center-crop."""
        if resolution is None:
            return cls(transform or "none", filter=filter)
        match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", str(resolution))
        if match is None:
            raise UsageError(f"resolution {resolution!r} must be a number of pixels such as 64, or 64x48")
        return cls(transform or "center-crop", int(match[1]), int(match[2]) if match[2] else None, filter)

    def apply(self, images: np.ndarray, where: str) -> np.ndarray:
        """Images [..., H, W] to [..., R, R]. Raises DataError naming `where` for what cannot be used as it is."""
        height, width = images.shape[-2:]
        if self.transform == "none":
            if height != width or width % 2:
                raise DataError(
                    f"{where}: {width} x {height} pixels; images must be square with an even side: "
                    "give --resolution and --transform"
                )
            return images
        assert self.width is not None
        if self.transform == "resize":
            return self._resize(images, self.width, self.width, where)
        if self.transform == "center-crop":
            side = min(height, width)
            return self._resize(_crop(images, side, side), self.width, self.width, where)
        assert self.height is not None
        crop_height = min(height, max(1, round(width * self.height / self.width)))
        crop_width = min(width, max(1, round(crop_height * self.width / self.height)))
        content = self._resize(_crop(images, crop_height, crop_width), self.height, self.width, where)
        black = 0 if images.dtype == np.uint8 else -1
        out = np.full((*images.shape[:-2], self.width, self.width), black, content.dtype)
        top = (self.width - self.height) // 2
        out[..., top : top + self.height, :] = content
        return out

    def _resize(self, images: np.ndarray, height: int, width: int, where: str) -> np.ndarray:
        if self.filter == "area" or images.shape[-2:] == (height, width):
            return area_resize(images, height, width)
        if images.dtype != np.uint8:
            raise DataError(f"{where}: holds floats, which --filter lanczos cannot resize; use --filter area")
        out = np.empty((*images.shape[:-2], height, width), np.uint8)
        for target, plane in zip(out.reshape(-1, height, width), images.reshape(-1, *images.shape[-2:]), strict=True):
            target[:] = Image.fromarray(plane).resize((width, height), Image.Resampling.LANCZOS)
        return out

    def noise_factor(self, height: int, width: int, where: str) -> float:
        """What white noise of standard deviation 1 in the image becomes. DataError where it would not stay white."""
        if self.transform == "none" or self.width is None:
            return 1.0
        if self.transform == "center-crop":
            height = width = min(height, width)
        if self.transform == "center-crop-wide" or self.filter != "area" or height % self.width or width % self.width:
            raise DataError(
                f"{where}: it is noisy, and bringing {width} x {height} to {self.width} pixels would correlate the "
                "noise of neighbours; noisy images can be resized by whole factors only"
            )
        return self.width / (height * width) ** 0.5

    def enlarges(self, height: int, width: int) -> bool:
        """Whether the image has fewer pixels along an axis than what it is brought to."""
        return self.width is not None and min(height, width) < (self.height or self.width)


def _crop(images: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    return images[..., top : top + height, left : left + width]
