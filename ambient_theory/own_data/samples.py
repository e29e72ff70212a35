"""Samples and their noise from a file, with everything that was left out named."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambient_theory.own_data.options import FitConfig
from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.numbers import Numbers, joined, one_column, read_numbers

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OwnSamples:
    """x: (n, d); s: (n,) standard deviation of each one's noise, or None where it is not known. names: of the d
    coordinates. noise: where s comes from, in words. rows: (n,) numbers of their rows in the file. notes: what was left
    out, and other sentences."""

    where: str
    x: Floats
    s: Floats | None
    names: tuple[str, ...]
    noise: str
    rows: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    @property
    def noise_std(self) -> Floats:
        """s, where it is known."""
        assert self.s is not None
        return self.s

    def with_noise(self, scale: float, known: bool) -> OwnSamples:
        """The same with the stated noise times `scale` (known), or with the common noise `scale`."""
        if known:
            return replace(self, s=scale * self.noise_std, noise=f"{self.noise}, times {scale:.4g} (estimated)")
        return replace(self, s=np.full(len(self.x), scale), noise=f"{scale:.4g} for all (estimated)")

    def digest(self) -> str:
        """What the samples are, as 16 digits: the numbers, not the file's name."""
        parts = [self.x] if self.s is None else [self.x, self.s]
        return hashlib.sha256(b"".join(np.ascontiguousarray(p).tobytes() for p in parts)).hexdigest()[:16]

    def sentence(self) -> str:
        n, d = self.x.shape
        what = ", ".join(self.names[:6]) + (", ..." if d > 6 else "")
        return f"{n:,} samples of {what} from {self.where}; noise: {self.noise}"


def samples_of_file(path: Path, config: FitConfig) -> OwnSamples:
    """The samples that the options name. Raises UsageError for columns that are not there, DataError for values."""
    numbers = read_numbers(path)
    s, words, used = _noise(numbers, config)
    x, names = joined(numbers, config.columns or _only(numbers, used))
    names = names if numbers.named else _unnamed(x.shape[1])
    if s is not None and len(s) not in (1, len(x)):
        raise DataError(f"{words} has {len(s):,} values for {len(x):,} samples: give one, or one for each")
    rows = np.arange(len(x)) + numbers.first
    every = None if s is None else np.broadcast_to(s, len(x))
    lost = np.asarray(np.isnan(x if every is None else np.column_stack([x, every])).any(axis=1))
    notes = []
    if lost.any():
        if not config.skip_missing:
            raise DataError(
                f"{path}: a value is missing in {numbers.rows(lost)}: fill them in, or leave these rows out with "
                "--skip-missing"
            )
        notes.append(f"left out, since a value is missing: {numbers.rows(lost)}")
    elif config.skip_missing:
        notes.append("--skip-missing changed nothing: no value is missing")
    kept = ~lost
    if not kept.any():
        raise DataError(f"{path}: no row is left: a value is missing in each")
    if every is not None:
        _check_positive(every, kept, numbers, words)
    return OwnSamples(
        str(path), x[kept], None if every is None else every[kept], names, words, rows[kept], tuple(notes)
    )


def samples_of_arrays(x: Any, noise: Any, config: FitConfig) -> OwnSamples:
    """The same from arrays x (n,) or (n, d) and noise: a number, (n,), or None where it is not known."""
    values = np.asarray(x, dtype=float)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or not len(values):
        raise UsageError(f"samples must be numbers (n,) or (n, d), not of shape {np.shape(x)}")
    s = None if noise is None else np.asarray(noise, dtype=float).reshape(-1)
    if s is not None and len(s) not in (1, len(values)):
        raise UsageError(f"the noise has {len(s):,} values for {len(values):,} samples: give one, or one for each")
    names = _unnamed(values.shape[1])
    numbers = Numbers("the samples", names, False, 0, lambda name: values)
    lost = np.asarray(~np.isfinite(values).all(axis=1))
    if lost.any():
        raise DataError(f"a value is missing or infinite in {numbers.rows(lost)}")
    if s is not None:
        s = np.array(np.broadcast_to(_deviations(s, config), len(values)))
        _check_positive(s, np.ones(len(s), dtype=bool), numbers, "the noise")
    return OwnSamples("arrays", values, s, names, "as given", np.arange(len(values)))


def _noise(numbers: Numbers, config: FitConfig) -> tuple[Floats | None, str, str]:
    """Standard deviations (n,) or (1,), where they are from, and the column that they take."""
    if config.unknown_noise:
        return None, "one for all, not known", ""
    asked = config.noise or ""
    used = ""
    if asked in numbers.names:
        column = numbers.column(asked)
        if column.shape[1] != 1:
            raise DataError(
                f"{numbers.where}: {asked} has {column.shape[1]} columns: noise is one number a sample, the same in "
                "each coordinate; divide coordinates of other noise by it first"
            )
        values, words, used = column[:, 0], f"column {asked}", asked
    elif (value := _number(asked)) is not None:
        values, words = np.array([value]), f"{value:g} for all"
    elif Path(asked).is_file():
        values, words = one_column(Path(asked), "the noise"), asked
    else:
        raise UsageError(
            f"--noise {asked} is no column of {numbers.where} (it has {', '.join(numbers.names)}), no number and no "
            "file that is there"
        )
    return _deviations(values, config), words + " (variances)" * (config.noise_is == "variance"), used


def _deviations(values: Floats, config: FitConfig) -> Floats:
    """Standard deviations of what --noise states; what is negative stays, to be named as it stands."""
    return np.where(values < 0, values, np.sqrt(np.abs(values))) if config.noise_is == "variance" else values


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"--noise {text}: the standard deviation of the noise must be finite and > 0")
    return value


def _unnamed(d: int) -> tuple[str, ...]:
    """`x`, or `x1`, `x2`, ...: coordinates that the file does not name."""
    return ("x",) if d == 1 else tuple(f"x{i + 1}" for i in range(d))


def _only(numbers: Numbers, used: str) -> tuple[str, ...]:
    """The columns where none was asked for: the one beside the noise, or all that have no names."""
    rest = tuple(name for name in numbers.names if name != used)
    if not rest:
        raise UsageError(f"{numbers.where} has no column beside the noise {used}: where are the samples?")
    if numbers.named and len(rest) > 1:
        beside = f" beside the noise {used}" if used else ""
        raise UsageError(
            f"{numbers.where} has the columns {', '.join(rest)}{beside}: say which are the samples, "
            f"--column {rest[0]} (several times for more dimensions)"
        )
    return rest


def _check_positive(s: Floats, kept: NDArray[np.bool_], numbers: Numbers, words: str) -> None:
    bad = kept & ~(s > 0)
    if bad.any():
        worst = float(s[bad][0])
        raise DataError(
            f"{numbers.where}: {words}: the noise must be > 0, and it is {worst:g} in {numbers.rows(bad)}: a sample "
            "without noise is an atom itself; give its measurement error, or leave it out"
        )
