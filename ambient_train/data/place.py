"""Where images are, in one word: a path, and what of it is meant.

    PATH[:/INSIDE][:range=LOW..HIGH]

`scan.h5:/raw/frames` is a data set inside an HDF5 file, `sky.fits:/SCI` an extension of a FITS file. `range` names the
values that become -1 and 1, in the units of the file (`range=0..4095`) or as shares of all values (`range=1%..99%`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from ambient_theory.shared.errors import UsageError

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})(%?)\.\.({_NUMBER})(%?)")
_TAIL = re.compile(r"^(?P<path>.+?)(?::(?P<inside>/[^:]*))?(?::range=(?P<range>[^:]*))?$", re.DOTALL)


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
class Place:
    """path: of a file or folder. inside: of a data set in it, or "". range: as asked, or None."""

    path: Path
    inside: str = ""
    range: Range | None = None

    def __str__(self) -> str:
        tail = f":{self.inside}" * bool(self.inside) + ("" if self.range is None else f":range={self.range}")
        return f"{self.path}{tail}"


def place(spec: str) -> Place:
    """The place that a spec names; one that exists as it is is a path. Raises UsageError for a range that is none."""
    whole = Path(spec).expanduser()
    found = _TAIL.match(spec)
    if _exists(whole) or found is None or (found["inside"] is None and found["range"] is None):
        return Place(whole)
    path, inside = Path(found["path"]).expanduser(), found["inside"] or ""
    if inside and not path.is_file():  # as the colon of a Windows drive
        path, inside = Path(f"{found['path']}:{inside}").expanduser(), ""
    return Place(path, inside, None if found["range"] is None else _range(spec, found["range"]))


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


def with_range(spec: str, low: float, high: float) -> str:
    """The spec with that range, whatever it says of one."""
    found = place(spec)
    return str(Place(found.path, found.inside, Range(low, high)))


def absolute(spec: str) -> str | None:
    """The spec with an absolute path; None where nothing is there."""
    found = place(spec)
    return str(Place(found.path.resolve(), found.inside, found.range)) if _exists(found.path) else None


def is_there(spec: str) -> bool:
    """Whether the path of the spec exists."""
    return _exists(place(spec).path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long or holds a null is no path
        return False
