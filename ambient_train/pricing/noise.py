"""The noise that is priced, at the small size: noise of the user's images, averaged like them.

An area average over r x r pixels divides the deviation of white noise by r; maps and spectra follow exactly
(`formats.noise_arrays.resized`). Where the sides do not divide, an output pixel averages with weights w, a pixel cut in
two belongs to two neighbours, and the deviation of white noise is multiplied by the mean of `sum w^2` (of one axis; the
root of the product over both), which is 1/r for whole r. Neighbours then share a little noise, and that correlation is
left out: the answer says how much. Noise that is not white needs sides that divide.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import atomic_file, content_hash
from ambient_train.data.formats.noise_arrays import StatedNoise, resized
from ambient_train.data.noise_models import added_noise, kind_of
from ambient_train.data.noise_models.poisson_gaussian import NAME as COUNTS
from ambient_train.data.resize import area_weights

if TYPE_CHECKING:
    from ambient_train.data.source import Source


@dataclass(frozen=True, eq=False)
class SmallNoise:
    """Noise at the small size. scale: what resizing multiplies the deviation by; correlation: of neighbouring pixels'
    noise afterwards, which is left out.

    kind, asked: as `--noise` names it, "" for white noise; array: its map or spectrum at this size.
    """

    scale: float
    correlation: float = 0.0
    kind: str = ""
    asked: str = ""
    array: np.ndarray | None = None

    @property
    def content(self) -> str:
        """Six hex digits of what it is at this size, "" for white noise."""
        return "" if self.array is None else content_hash(self.array.tolist(), 6)

    def write(self, folder: Path) -> str:
        """`--noise` of the trainings: the array in a file of the folder, "" for white noise."""
        if self.array is None:
            return ""
        path = folder / f"{self.kind}-{self.content}.npy"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as file:
                np.save(file, self.array)
        return f"{self.kind}:{path}"


def small_noise(spec: str, source: Source, channels: int, side: int, resolution: int, data: str) -> SmallNoise:
    """The noise `spec` of images of `side` pixels, at `resolution`; "": that of the images that came noisy, else white.

    Raises UsageError for noise that has no fixed covariance, DataError for sides that do not divide and for images that
    came with maps that differ.
    """
    if spec and kind_of(spec) == COUNTS:
        raise UsageError(
            f"--noise {spec}: counts are priced after the transformation that makes their noise white: name DATA with "
            "`:gain=G` behind it, and give --sigma as `ambient data check` says it"
        )
    kind, stated = _at_its_size(spec, source, (channels, side, side), data)
    if not kind:
        scale, correlation = noise_after_resizing(side, resolution)
        return SmallNoise(scale, correlation)
    small = resized(stated, side, resolution, data)
    assert small.sigma is not None
    array = small.pattern if small.spectrum is None else small.spectrum
    if array is None:  # alike everywhere after averaging
        return SmallNoise(float(small.sigma[0]))
    array = array.reshape(array.shape[-3:])
    return SmallNoise(float(small.sigma[0]), 0.0, kind, spec or f"{kind}, as the images came", array)


def _at_its_size(spec: str, source: Source, shape: tuple[int, int, int], data: str) -> tuple[str, StatedNoise]:
    """(kind, noise of strength 1); kind "" where it is white."""
    one = np.ones(1, np.float32)
    if spec:
        model = added_noise(spec, shape)
        arrays = model.describe()
        pattern = arrays.get("pattern")
        return ("" if model.white else model.kind), StatedNoise(one, pattern, arrays.get("spectrum"))
    if source.spectrum is not None:
        return "correlated", StatedNoise(one, None, source.spectrum)
    if source.pattern is None or source.sigma_n is None or not source.sigma_n.any():
        return "", StatedNoise(one)
    maps = source.pattern[source.sigma_n > 0]
    if np.ptp(maps, axis=0).max() > 1e-4:
        raise DataError(
            f"{data}: the noisy images have maps of their noise that differ; say which is priced: --noise "
            "variance-map:FILE.npy, or --noise white"
        )
    return "variance-map", StatedNoise(one, maps[:1])


def noise_after_resizing(side: int, resolution: int) -> tuple[float, float]:
    """(factor on the deviation of white noise, greatest correlation of two neighbours) of an area average."""
    overlap, total = area_weights(side, resolution)
    weights = overlap / total
    covariance = weights @ weights.T
    own = np.diag(covariance)
    beside = np.diag(covariance, 1) / np.sqrt(own[:-1] * own[1:])
    return float(own.mean()), float(max(beside.max(initial=0.0), 0.0))
