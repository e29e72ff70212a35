"""What `ambient data noise` finds in a source: the level of each image and of each set of them, and what kind it is.

Images are one set, or one a folder where folders are kinds of noise, or one a stated level; a set whose images show two
levels that are far apart is split. Levels are told in the units that the source's own levels are in.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import atomic_write_bytes, atomic_write_text
from ambient_train.data.estimation.gain import Gain, gain_of
from ambient_train.data.estimation.level import CLEAN, Candidate, Level, level_of_set, levels_of_images, way_of_images
from ambient_train.data.estimation.options import NoiseOptions
from ambient_train.data.estimation.rician import Rician, rician_of
from ambient_train.data.estimation.spectrum import check_spectrum_file, write_spectrum
from ambient_train.data.estimation.whiteness import Whiteness, whiteness
from ambient_train.data.images import to_pixels
from ambient_train.data.load import subset_ids
from ambient_train.data.place import place
from ambient_train.data.readers import open_source
from ambient_train.data.source import Source
from ambient_train.data.values import told_in

SCHEMA = "ambient.data-noise/1"
_CHUNK, _LEAST_IMAGES, _APART, _EXPLAINED, _ALIKE = 256, 4, 1.5, 0.85, 0.6
_EIGHT_BITS = (-1.0, 1.0)
_MOST_IMAGES, _FEWEST_LARGE, _MOST_PIXELS = 512, 16, 2**23
_VISIBLE, _FLAT_BY_CHANCE = 0.02, 0.1
"""Share of pixels at an end of the range that is named, and of flat patches among the 2 x 2 that touch it: pixels of
which half are clipped, at random, leave 1 in 15; backgrounds without noise leave more."""


@dataclass(frozen=True)
class ImageSetNoise:
    """One set: its name, how many images, their stated level (None: none is stated), what is seen and of what kind.

    clean: nothing above `level.CLEAN` is seen. one_level: whether the images share the level; else each has its own.
    rician: where they are magnitudes of complex images; the level is then that of the real and the imaginary part.
    """

    name: str
    images: int
    stated: float | None
    level: Level
    clean: bool
    one_level: bool
    whiteness: Whiteness | None
    gain: Gain | None
    rician: Rician | None = None


@dataclass(frozen=True)
class NoiseReport:
    """Levels in `unit`; names, levels, sets by image in the order of the source."""

    source: str
    unit: str
    sets: tuple[ImageSetNoise, ...]
    names: tuple[str, ...]
    levels: tuple[Level, ...]
    told: tuple[float, ...]
    of_set: tuple[int, ...]
    notes: tuple[str, ...]
    table: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready. `sigma` of an image is what the table says: of its set where that has one level, 0 if clean."""
        images = [
            {"image": name, "sigma": told, "estimate": x.value, "low": x.low, "high": x.high, "set": k}
            for name, x, told, k in zip(self.names, self.levels, self.told, self.of_set, strict=True)
        ]
        sets = [asdict(s) | {"white": None if s.whiteness is None else s.whiteness.white} for s in self.sets]
        return {
            "schema": SCHEMA,
            "source": self.source,
            "unit": self.unit,
            "sets": sets,
            "images": images,
            "table": self.table,
            "notes": list(self.notes),
        }


def noise_of(
    spec: str,
    options: NoiseOptions | None = None,
    *,
    table: Path | None = None,
    spectrum: Path | None = None,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> NoiseReport:
    """Estimate the noise of a source and, with `table`, write the levels as `train` reads them.

    table: a .csv in the folder of the images, or `<stem>.sigma.npy` beside one file of them. spectrum: a .npy for the
    power spectrum of the source's images, which must hold noise alone. Raises UsageError for a
    table that would not be read or is there already, DataError for images that cannot be read or differ in size, and
    for a table of magnitudes whose object is not above the noise (`rician`).
    """
    options = options or NoiseOptions()
    source = open_source(spec)
    if table is not None:
        _check_table(spec, source, table, overwrite)
    chosen = subset_ids(np.arange(source.count, dtype=np.int64), options.max_images)
    if table is not None and len(chosen) < source.count:
        raise UsageError("a table needs the level of every image: leave --max-images out")
    if spectrum is not None:
        check_spectrum_file(spectrum, overwrite)
    pixels, eight_bits = _pixels(source, chosen, spec, progress)
    clipped = _EIGHT_BITS if eight_bits else None
    unit, words = told_in(source.values)
    zero = _zero(source, eight_bits)
    names = _names(source, chosen)
    groups = _groups(source, chosen, unit)
    levels: list[Level | None] = [None] * len(chosen)
    told, of_set = np.zeros(len(chosen)), np.zeros(len(chosen), int)
    sets: list[ImageSetNoise] = []
    clipping: list[str] = []
    done = 0
    for name, stated, index in groups:
        magnitudes = _rician(pixels[index], zero)
        halves = [(0, index)] if magnitudes else _parts(pixels, index, clipped)
        parts = [(part, rows, _one_set(pixels[rows], clipped, magnitudes)) for part, rows in halves]
        if len(parts) == 2 and all(result[0].clean for _, _, result in parts):
            parts = [(0, index, _one_set(pixels[index], clipped))]
        for part, rows, (found, each, shown) in parts:
            label = name if len(rows) == len(index) else f"{name}, {'quieter' if part == 0 else 'noisier'} part"
            line = found.gain
            if line is not None and source.values is not None:
                line = None if source.values.counts else line.scaled(source.values.low, unit)
            known = None if stated is None else stated * unit
            level = _scaled(found.level, unit)
            own_unit = None if found.rician is None else found.rician.scaled(unit)
            s = replace(found, name=label, images=len(rows), stated=known, level=level, gain=line, rician=own_unit)
            for row, own, value in zip(rows, each, shown, strict=True):
                levels[row], told[row], of_set[row] = _scaled(own, unit), value * unit, len(sets)
            sets.append(s)
            share = clipped_share(pixels[rows], clipped)
            if share:
                clipping.append(
                    f"{label}: {share:.0%} of the pixels lie at one end of the 8 bits, scattered as noise that was "
                    "clipped there: the level is too small, or none is seen; give images before clipping, or state it"
                )
            done += len(rows)
            progress("estimate", done, len(chosen))
    hopeless = next((s for s in sets if s.rician is not None and not s.rician.usable), None)
    if table is not None and hopeless is not None and hopeless.rician is not None:
        raise DataError(f"{spec}: no table is written: {hopeless.name}: {hopeless.rician.sentence()}")
    if spectrum is not None:
        write_spectrum(spectrum, pixels, spec)
    report = NoiseReport(
        spec,
        words,
        tuple(sets),
        tuple(names),
        tuple(level for level in levels if level is not None),
        tuple(float(f"{x:.5g}") for x in told),
        tuple(int(k) for k in of_set),
        (*source.notes, *clipping, *_notes(sets, None if eight_bits else spec)),
        None if table is None else str(table),
    )
    if table is not None:
        _write_table(table, report)
    return report


def _pixels(
    source: Source, ids: np.ndarray, spec: str, progress: Callable[[str, int, int], None]
) -> tuple[np.ndarray, bool]:
    """float32 [N, C, H, W] in units of [-1, 1], and whether they are of 8 bits."""
    first = source.read(ids[:1])
    pixels = np.empty((len(ids), *first.shape[1:]), np.float32)
    for start in range(0, len(ids), _CHUNK):
        pixels[start : start + _CHUNK] = to_pixels(source.read(ids[start : start + _CHUNK]))
        progress("read", min(start + _CHUNK, len(ids)), len(ids))
    if min(pixels.shape[-2:]) < 4:
        raise DataError(f"{spec}: images of {pixels.shape[-1]} x {pixels.shape[-2]} pixels are too small to tell noise")
    return pixels, first.dtype == np.uint8


def _names(source: Source, ids: np.ndarray) -> list[str]:
    return [source.tree.images[int(i)] if source.tree is not None else f"image {int(i)}" for i in ids]


def _groups(source: Source, ids: np.ndarray, unit: float) -> list[tuple[str, float | None, np.ndarray]]:
    """(name in `unit`, stated level in units of [-1, 1], positions) of sets of images that are said to be alike."""
    if source.sigma_n is not None:
        stated = source.sigma_n[ids]
        values = np.unique(stated)
        if len(values) <= 20:
            return [(f"stated {value * unit:.4g}", float(value), np.flatnonzero(stated == value)) for value in values]
    if source.question and source.tree is not None:
        tops = np.array([name.split("/")[0] for name in source.tree.flat_names()])[ids]
        return [(f"{top}/", None, np.flatnonzero(tops == top)) for top in np.unique(tops)]
    return [("all images", None, np.arange(len(ids)))]


def _parts(pixels: np.ndarray, index: np.ndarray, clipped: tuple[float, float] | None) -> list[tuple[int, np.ndarray]]:
    """The set, or two of it where its images show two levels that are far apart."""
    if len(index) < 4 * _LEAST_IMAGES:
        return [(0, index)]
    rough = _rough(pixels[index], clipped)
    logs = np.log(np.maximum(np.nan_to_num(rough, nan=CLEAN), CLEAN / 4))
    order = np.argsort(logs, kind="stable")
    best, at = 0.0, 0
    for k in range(_LEAST_IMAGES, len(index) - _LEAST_IMAGES + 1):  # the split in two that explains most
        a, b = logs[order[:k]], logs[order[k:]]
        between = k * (len(index) - k) / len(index) ** 2 * (b.mean() - a.mean()) ** 2
        if between > best:
            best, at = between, k
    a, b = order[:at], order[at:]
    if not at:
        return [(0, index)]
    apart = logs[b].mean() - logs[a].mean()
    if best < _EXPLAINED * logs.var() or apart < max(np.log(_APART), 3 * max(logs[a].std(), logs[b].std())):
        return [(0, index)]
    return [(0, np.sort(index[a])), (1, np.sort(index[b]))]


def _rough(pixels: np.ndarray, clipped: tuple[float, float] | None) -> np.ndarray:
    """The level of each image by itself."""
    return np.array([x.value for x in levels_of_images(pixels, way_of_images(_most(pixels), clipped), clipped)])


def clipped_share(pixels: np.ndarray, clipped: tuple[float, float] | None) -> float:
    """Share of the pixels of images [N, C, H, W] at the end of the range where most are, if they are scattered there as
    clipped noise is; 0 where they are few, or flat as backgrounds without noise."""
    if clipped is None:
        return 0.0
    at = max((pixels == end for end in clipped), key=np.mean)
    windows = (at[:, :, i : at.shape[2] - 1 + i, j : at.shape[3] - 1 + j] for i in (0, 1) for j in (0, 1))
    count = sum(window.astype(np.int8) for window in windows)
    share, touching = float(at.mean()), int((count > 0).sum())
    return share if share > _VISIBLE and (count == 4).sum() < _FLAT_BY_CHANCE * touching else 0.0


def _zero(source: Source, eight_bits: bool) -> float | None:
    """Where a value of 0 lies in units of [-1, 1]; None for 8 bits and for counts, which are no magnitudes."""
    if eight_bits or (source.values is not None and source.values.counts is not None):
        return None
    return -1.0 if source.values is None else float(source.values.to_pixels(np.zeros(1))[0])


def _rician(pixels: np.ndarray, zero: float | None) -> Rician | None:
    """Of images whose value of 0 is at `zero`, all of them above it; None where no such noise above `CLEAN` is seen."""
    found = None if zero is None or pixels.min() < zero else rician_of(_most(pixels) - zero)
    return found if found is not None and found.sigma >= CLEAN else None


def _most(pixels: np.ndarray) -> np.ndarray:
    """512 images at most, of large ones as many as 8 million pixels are and 16 or more, as far apart as they come;
    float64."""
    count = min(_MOST_IMAGES, max(_FEWEST_LARGE, _MOST_PIXELS // pixels[0].size))
    return pixels[np.unique(np.linspace(0, len(pixels) - 1, count).astype(int))].astype(np.float64)


def _one_set(
    pixels: np.ndarray, clipped: tuple[float, float] | None, magnitudes: Rician | None = None
) -> tuple[ImageSetNoise, list[Level], np.ndarray]:
    """(the set in units of [-1, 1], the level of each image by itself, what the table says of each)."""
    if magnitudes is not None:  # one coil, one level: fine detail shows less of it where it is dark
        level = Level(magnitudes.sigma, *magnitudes.interval)
        whole = ImageSetNoise("", len(pixels), None, level, False, True, None, None, magnitudes)
        return whole, [level] * len(pixels), np.full(len(pixels), level.value)
    if len(pixels) < _LEAST_IMAGES:
        each = _alone(pixels, clipped)
        values = np.array([0.0 if not x.value >= CLEAN else x.value for x in each])
        level = Level(float(np.median([x.value for x in each])), min(x.low for x in each), max(x.high for x in each))
        return ImageSetNoise("", len(pixels), None, level, not values.any(), False, None, None), each, values
    most = _most(pixels)
    level, way = level_of_set(most, clipped), way_of_images(most, clipped)
    each = levels_of_images(pixels, way, clipped)
    clean = not level.value >= CLEAN
    inside = np.mean([x.low <= level.high and level.low <= x.high for x in each])
    one = bool(inside >= _ALIKE) or clean
    if one and not clean:
        each = levels_of_images(pixels, way, clipped, level)
    kind = None if clean else whiteness(most)
    line = None if clean else gain_of(most)
    if line is not None and line.grows:  # each image counts as white of its mean variance
        values = np.array([float(np.sqrt(line.variance(x.mean(0, dtype=np.float64)).mean())) for x in pixels])
        mean = float(np.sqrt((values**2).mean()))
        level = Level(mean, mean * level.low / level.value, mean * level.high / level.value, level.smooth)
        return ImageSetNoise("", len(pixels), None, level, False, False, kind, line), each, values
    value = 0.0 if clean else level.value
    own = np.array([x.value if np.isfinite(x.value) and x.value >= CLEAN else 0.0 for x in each])
    values = np.full(len(pixels), value) if one else own
    return ImageSetNoise("", len(pixels), None, level, clean, one, kind, None), each, values


def _alone(pixels: np.ndarray, clipped: tuple[float, float] | None) -> list[Level]:
    side = 3 if min(pixels.shape[-2:]) >= 6 else 2
    size = pixels.shape[1] * side * side
    kept = np.setdiff1d(np.arange(size), np.arange(pixels.shape[1]) * side * side)
    return levels_of_images(pixels, Candidate(side, kept), clipped)


def _scaled(level: Level, unit: float) -> Level:
    return Level(level.value * unit, level.low * unit, level.high * unit, level.smooth)


def _notes(sets: list[ImageSetNoise], numbers: str | None) -> list[str]:
    """numbers: the source, where its values are numbers that a transform can be applied to."""
    notes = []
    for s in sets:
        if s.rician is not None:
            notes.append(f"{s.name}: {s.rician.sentence()}")
        if s.whiteness is not None and not s.whiteness.white:
            notes.append(
                f"{s.name}: the noise is not white, or there is texture that looks like it: a level seen in fine "
                "detail is too small (or too large) for it; --spectrum takes its spectrum from images without content, "
                "and training uses it"
            )
        if s.gain is not None:
            line = f"{s.gain.gain:.4g},{s.gain.intercept:.4g}"
            how = f"read {place(numbers).path}:gain={line} to give it one level" if numbers else "8 bits hide it"
            notes.append(f"{s.name}: {s.gain.sentence()}; {how}, else an image counts as white of its mean variance")
        if s.stated is not None and not s.clean and not 0.95 * s.level.low <= s.stated <= 1.05 * s.level.high:
            grey = s.level.value * 127.5
            hint = " (it is the level in grey values of 255)" if 0.8 < s.stated / max(grey, 1e-9) < 1.25 else ""
            notes.append(f"{s.name}: {s.stated:.4g} is stated, {s.level.value:.4g} is seen{hint}")
        if s.stated and s.clean:
            notes.append(f"{s.name}: {s.stated:.4g} is stated, and no noise is seen in fine detail")
    return notes


# ------------------------------------------------------------------------------------------------------------ the table


def _check_table(spec: str, source: Source, table: Path, overwrite: bool) -> None:
    path, tree = place(spec).path, source.tree
    if tree is not None and tree.folder:
        if table.suffix.lower() != ".csv" or table.resolve().parent != path.resolve():
            raise UsageError(f"{table}: the table of a folder is a .csv in it: give --table {path / 'dataset.csv'}")
    elif path.is_file() and not path.name.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz", ".lmdb", ".mdb")):
        beside = sigma_file(path)
        if table.resolve() != beside.resolve():
            raise UsageError(f"{table}: the levels of one file stand beside it: give --table {beside}")
    else:
        raise UsageError(f"{spec}: no table beside such a source is read; unpack it into a folder, or prepare an .npz")
    if table.exists() and not overwrite:
        raise UsageError(f"{table} exists: give --overwrite to replace it")
    if not table.resolve().parent.is_dir():
        raise DataError(f"{table.parent}: no such directory")


def sigma_file(path: Path) -> Path:
    """Where the levels of the images of one file are read from: `<stem>.sigma.npy` beside it."""
    from ambient_train.data.formats.passed_over import suffix

    return path.with_name(f"{path.name[: len(path.name) - len(suffix(path.name))]}.sigma.npy")


def _write_table(table: Path, report: NoiseReport) -> None:
    if table.suffix.lower() == ".csv":
        rows = [f"{_quoted(name)},{sigma:.5g}" for name, sigma in zip(report.names, report.told, strict=True)]
        atomic_write_text(table, "\n".join(["file,sigma", *rows]) + "\n")
        return
    data = io.BytesIO()
    np.save(data, np.array(report.told, np.float32))
    atomic_write_bytes(table, data.getvalue())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\n\r#;\t') else name
