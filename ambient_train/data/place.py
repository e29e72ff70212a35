"""Where images are, in one word: a path, and what of it is meant.

    PATH[:/INSIDE][:range=LOW..HIGH][:gain=GAIN[,INTERCEPT]]

`scan.h5:/raw/frames` is a data set inside an HDF5 file, `sky.fits:/SCI` an extension of a FITS file. `range` names the
values that become -1 and 1, in the units of the file (`range=0..4095`) or as shares of all values (`range=1%..99%`).
`gain` says that the variance of the noise is GAIN v + INTERCEPT at brightness v, as counts have it: the values are then
transformed so that the noise has one level (`data.anscombe`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

from ambient_theory.shared.errors import UsageError

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})(%?)\.\.({_NUMBER})(%?)")
_TAIL = re.compile(
    r"^(?P<path>.+?)(?::(?P<inside>/[^:]*))?(?::range=(?P<range>[^:]*))?(?::gain=(?P<gain>[^:]*))?$", re.DOTALL
)


@dataclass(frozen=True)
class Range:
    """Values that become -1 and 1: numbers in the units of the file, or percentiles of its values."""

    low: float
    high: float
    percent: bool = False

    def __str__(self) -> str:
        sign = "%" * self.percent
        return f"{self.low!r}{sign}..{self.high!r}{sign}"


@dataclass(frozen=True)
class Counts:
    """The noise of counts: variance = gain v + intercept, in the units of the file."""

    gain: float
    intercept: float = 0.0

    def __str__(self) -> str:
        return f"{self.gain!r}" + (f",{self.intercept!r}" if self.intercept else "")


@dataclass(frozen=True)
class Place:
    """path: of a file or folder. inside: of a data set in it, or "". range, counts: as asked, or None."""

    path: Path
    inside: str = ""
    range: Range | None = None
    counts: Counts | None = None

    def __str__(self) -> str:
        tail = f":{self.inside}" * bool(self.inside) + ("" if self.range is None else f":range={self.range}")
        return f"{self.path}{tail}" + ("" if self.counts is None else f":gain={self.counts}")

    @property
    def mapped(self) -> bool:
        """Whether it says how values become pixels."""
        return self.range is not None or self.counts is not None


def place(spec: str) -> Place:
    """The place that a spec names; one that exists as it is is a path. Raises UsageError for a range that is none."""
    whole = Path(spec).expanduser()
    found = _TAIL.match(spec)
    if _exists(whole) or found is None or all(found[part] is None for part in ("inside", "range", "gain")):
        return Place(whole)
    path, inside = Path(found["path"]).expanduser(), found["inside"] or ""
    if inside and not path.is_file():  # as the colon of a Windows drive
        path, inside = Path(f"{found['path']}:{inside}").expanduser(), ""
    asked = None if found["range"] is None else _range(spec, found["range"])
    return Place(path, inside, asked, None if found["gain"] is None else _counts(spec, found["gain"]))


def _counts(spec: str, text: str) -> Counts:
    numbers = [float(part) for part in text.split(",") if re.fullmatch(_NUMBER, part.strip())]
    if len(numbers) == text.count(",") + 1 <= 2 and all(map(math.isfinite, numbers)) and numbers[0] > 0:
        return Counts(*numbers)
    raise UsageError(
        f"{spec}: gain {text!r} must be the gain, above 0, or gain and intercept of variance = gain v + intercept, as "
        "in gain=2.1 or gain=2.1,-180; `ambient data noise` finds them"
    )


def _range(spec: str, text: str) -> Range:
    match = _RANGE.fullmatch(text.strip())
    if match is not None:
        low, high = float(match[1]), float(match[3])
        percent = match[2] == "%"
        if (
            match[2] == match[4]
            and low < high
            and math.isfinite(high - low)
            and (not percent or 0 <= low < high <= 100)
        ):
            return Range(low, high, percent)
    raise UsageError(
        f"{spec}: range {text!r} must be two numbers, low then high, in the units of the file or as shares of its "
        "values, as in range=0..4095 or range=1%..99%"
    )


def with_map(spec: str, low: float, high: float, counts: Counts | None) -> str:
    """The spec with that range and that noise of counts, whatever it says of them."""
    found = place(spec)
    return str(Place(found.path, found.inside, Range(low, high), counts))


def absolute(spec: str) -> str | None:
    """The spec with an absolute path; None where nothing is there."""
    found = place(spec)
    return str(replace(found, path=found.path.resolve())) if _exists(found.path) else None


def is_there(spec: str) -> bool:
    """Whether the path of the spec exists."""
    return _exists(place(spec).path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long or holds a null is no path
        return False
