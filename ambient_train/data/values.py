"""From the numbers of a file to pixels in units of [-1, 1], and back: a map that is kept with the run.

    x = 2 (v - low)/(high - low) - 1,        v = low + (x + 1)(high - low)/2

v in the units of the file (counts, electrons, ...); nothing is clipped on the way to x. A noise level s of v is
2 s/(high - low) of x. Counts, whose noise grows with brightness, go through the generalised Anscombe transform T first
(`data.anscombe`): then x = 2 (T(v) - T(low))/(T(high) - T(low)) - 1, its noise has one level, 2/(T(high) - T(low)), and
clean values have the mean of T in place of T. Images of 8 bits have no such map: theirs is fixed, x = v/127.5 - 1
(`images.to_pixels`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_train.data.anscombe import Anscombe
from ambient_train.data.place import Counts, Place, Range

DEFAULT = Range(0.1, 99.9, percent=True)
"""Shares of the values between which pixels are in [-1, 1]: single hot pixels do not settle the contrast."""
_SAMPLED_IMAGES, _SAMPLED_VALUES = 256, 2**22
_FAR = 1.5


@dataclass(frozen=True)
class ValueMap:
    """low, high: values that become -1 and 1. dtype: of the values in the file, without byte order, as in `uint16`.
    kind: the reader that knows the format, for writing it again. counts: of noise that grows with brightness, or None.
    """

    low: float
    high: float
    dtype: str
    kind: str
    counts: Counts | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise DataError(f"values from {self.low:g} to {self.high:g} are no range")
        if self._transform is not None and not self._ends[0] < self._ends[1]:
            raise DataError(f"values from {self.low:g} to {self.high:g} are all below the darkest count")

    @cached_property
    def _transform(self) -> Anscombe | None:
        return None if self.counts is None else Anscombe(self.counts.gain, self.counts.intercept)

    @cached_property
    def _ends(self) -> tuple[float, float]:
        if self._transform is None:
            return self.low, self.high
        low, high = self._transform.forward(np.array([self.low, self.high]))
        return float(low), float(high)

    @property
    def unit(self) -> float:
        """What 1 in units of [-1, 1] is in the units in which the noise has its level: of the file, or of T, where that
        level is 1."""
        return (self._ends[1] - self._ends[0]) / 2

    def to_pixels(self, values: np.ndarray, *, clean: bool = False) -> np.ndarray:
        """float32 x of values v, any shape; infinite beyond what they hold.

        clean: the values have no noise, which matters for counts alone.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            plain = values.astype(np.float64)
            if self._transform is not None:
                plain = self._transform.mean(plain) if clean else self._transform.forward(plain)
            return ((plain - self._ends[0]) / self.unit - 1).astype(np.float32)

    def to_values(self, pixels: np.ndarray) -> np.ndarray:
        """float64 v of pixels x, any shape; of counts, the clean ones whose noisy ones have that mean.

        Not linear for counts: means and deviations of x are not those of v (`tasks.restore_counts`).
        """
        plain = self._ends[0] + (np.asarray(pixels, np.float64) + 1) * self.unit
        return plain if self._transform is None else self._transform.inverse(plain)

    def to_own(self, pixels: np.ndarray) -> np.ndarray:
        """v of pixels x as the type of the file: whole numbers are rounded and kept within what the type can hold."""
        dtype, values = np.dtype(self.dtype), self.to_values(pixels)
        if dtype.kind not in "ui":
            with np.errstate(over="ignore"):
                return values.astype(dtype)
        info = np.iinfo(dtype)
        return np.clip(np.rint(values), info.min, info.max).astype(dtype)

    def like(self, other: ValueMap | None) -> bool:
        """Whether both make the same pixels of the same numbers, whatever type and kind of file those are of."""
        mine = (self.low, self.high, self.counts)
        return other is not None and mine == (other.low, other.high, other.counts)

    def __str__(self) -> str:
        return f"{self.low:.6g}..{self.high:.6g}" + f", gain {self.counts}" * (self.counts is not None)

    def to_dict(self) -> dict[str, Any]:
        stored = {"low": self.low, "high": self.high, "dtype": self.dtype, "kind": self.kind}
        return stored if self.counts is None else {**stored, "counts": [self.counts.gain, self.counts.intercept]}

    def to_bytes(self, **more: Any) -> np.ndarray:
        """uint8 [n]: JSON, as an .npz keeps it beside its images."""
        return np.frombuffer(json.dumps(self.to_dict() | more, sort_keys=True).encode(), np.uint8)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], where: str) -> ValueMap:
        """Inverse of `to_dict`. Raises DataError naming `where` for what is none."""
        try:
            dtype = np.dtype(stored["dtype"])
            if dtype.kind not in "uif":
                raise ValueError(f"type {dtype}")
            counts = None if stored.get("counts") is None else Counts(*(float(c) for c in stored["counts"]))
            return cls(float(stored["low"]), float(stored["high"]), dtype.name, str(stored["kind"]), counts)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: not a map of values to pixels ({error})") from None


UNIT, OF_FILES = "units of [-1, 1]", "the units of the files"
TRANSFORMED = "units of the transformed counts, in which it is 1"


def told_in(values: ValueMap | None) -> tuple[float, str]:
    """(factor, words): a noise level in units of [-1, 1] times the factor is one in the units in which it is told."""
    if values is None:
        return 1.0, UNIT
    return values.unit, OF_FILES if values.counts is None else TRANSFORMED


def values_of(described: Mapping[str, Any] | None) -> ValueMap | None:
    """The map that a manifest keeps with what it says of the data; None where the data have none."""
    stored = (described or {}).get("values")
    return None if stored is None else ValueMap.from_dict(stored, "the run's manifest")


def find_range(
    read: Callable[[int], np.ndarray], count: int, place: Place, dtype: str, kind: str, where: str
) -> tuple[ValueMap, tuple[str, ...]]:
    """The map for `count` images read(k) [C, H, W] of numbers, and a sentence on what was chosen and what lies beyond.

    place: what was asked for; without a range, `DEFAULT`. Percentiles are of up to 256 images spread over all. Raises
    DataError naming `where` where all values are alike, or not finite.
    """
    asked = place.range
    if asked is not None and not asked.percent:
        made = ValueMap(asked.low, asked.high, dtype, kind, place.counts)
        return made, (_said(made), *_said_of_counts(made))
    chosen = asked or DEFAULT
    index = np.unique(np.linspace(0, count - 1, min(count, _SAMPLED_IMAGES)).astype(int))
    room = max(1, _SAMPLED_VALUES // len(index))
    parts = []
    for k in index:
        flat = read(int(k)).reshape(-1)
        with np.errstate(invalid="ignore"):  # of a signalling NaN
            parts.append(flat[:: max(1, -(-flat.size // room))].astype(np.float64))
    sample = np.concatenate(parts)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        raise DataError(f"{where}: none of the values looked at is finite")
    low, high = (float(v) for v in np.percentile(sample, [chosen.low, chosen.high]))
    if not low < high:
        low, high = float(sample.min()), float(sample.max())
    if not low < high:
        raise DataError(f"{where}: all values looked at are {low:g}: give their range, as in {where}:range=0..4095")
    made = ValueMap(low, high, dtype, kind, place.counts)
    of = f"{chosen.low:g} and {chosen.high:g} % of the values of {len(index):,} images"
    said = f"{_said(made, of)}; `:range=LOW..HIGH` behind the path chooses another range{_reach(made, sample)}"
    return made, (said, *_said_of_counts(made))


def _said_of_counts(made: ValueMap) -> tuple[str, ...]:
    if made.counts is None:
        return ()
    gain, intercept = made.counts.gain, made.counts.intercept
    return (
        f"counts whose noise has the variance {gain:.4g} v {'-' if intercept < 0 else '+'} {abs(intercept):.4g} go "
        f"through the generalised Anscombe transform, which gives it one level, {1 / made.unit:.4g} in units of "
        "[-1, 1], within 3 % above 4 photons; outputs come back through its exact unbiased inverse",
    )


def _said(made: ValueMap, of: str = "as is asked") -> str:
    """What becomes -1 and 1, and which unit levels have. Counts have their own sentence on that."""
    unit = f"; noise levels are in the units of the files, {made.unit:.6g} of which are 1 in units of [-1, 1]"
    return (
        f"values of type {made.dtype}: {made.low:.6g} to {made.high:.6g} ({of}) become -1 to 1, nothing is clipped"
        + unit * (made.counts is None)
    )


def _reach(made: ValueMap, sample: np.ndarray) -> str:
    """How far values lie beyond the map, where that is far."""
    least, most = float(sample.min()), float(sample.max())
    reach = float(np.abs(made.to_pixels(np.array([least, most]))).max())
    if reach <= _FAR:
        return ""
    return f"; values reach from {least:.6g} to {most:.6g}, which is {reach:.3g} in units of [-1, 1]"
