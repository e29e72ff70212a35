"""What is in a set of images, and what is wrong with which file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.plain_text import printable_line
from ambient_train.data.formats.trees import decode_threads
from ambient_train.data.images import to_pixels
from ambient_train.data.noise import disagreeing, estimate_noise, halved, stated_notes, unit_notes
from ambient_train.data.readers import open_source
from ambient_train.data.source import Source, prepare_command
from ambient_train.data.values import UNIT, told_in

SCHEMA = "ambient.data-check/1"
_MODES = {1: "grey", 2: "real and imaginary part", 3: "RGB"}
_CHUNK = 256
_MOST_PIXELS, _NOISE_SIDE = 2**22, 2048
"""Numbers worked on at once, and the side of the middle of an image whose noise is estimated."""


def snr_db(sigma: float) -> float:
    """SNR in the decibels of Daras et al. (arXiv 2411.02780): noisy image over noise, `10 log10((1 + sigma^2)/sigma^2)`
    for an image of unit variance and sigma > 0 (0.2 is 14.15 dB). The project's only definition of SNR."""
    return float(10 * np.log10((1 + sigma**2) / sigma**2))


@dataclass
class CheckReport:
    """Counts over a source. mean and std are in units of [-1, 1], by channel; SNR in dB; problems make it unusable.

    unit: that of the `told` levels, and factor: how many of it are 1 in units of [-1, 1]; value_range: numbers of the
    files that are -1 and 1, where they are mapped.
    """

    source: str
    count: int
    readable: int
    resolution: dict[str, int]
    mode: dict[str, int]
    dtype: str
    mean: list[float]
    std: list[float]
    classes: int | None
    labels: dict[str, int] | None
    class_names: list[str] | None
    unlabelled: int
    heldout: int | None
    levels: list[dict[str, float | int | None]]
    duplicates: int
    duplicate_examples: list[list[str]]
    problems: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unit: str = UNIT
    factor: float = 1.0
    value_range: list[float] | None = None

    @property
    def usable(self) -> bool:
        """Whether training can read the source as it is."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {"schema": SCHEMA, "usable": self.usable, **asdict(self)}


@dataclass
class _Part:
    """What one chunk of images adds."""

    hashes: list[bytes] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    shapes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    first: dict[tuple[int, ...], int] = field(default_factory=dict)
    noise: list[float] = field(default_factory=list)
    coarse: list[float] = field(default_factory=list)
    converted: Counter[str] = field(default_factory=Counter)
    sums: dict[int, np.ndarray] = field(default_factory=dict)  # channels -> [3, C]: pixels, sum, sum of squares
    dtype: str = "uint8"
    low: float = np.inf
    high: float = -np.inf
    problems: list[tuple[int, str]] = field(default_factory=list)


def check(
    spec: str,
    *,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> CheckReport:
    """Read every image of a source once and report; a source that cannot be opened is a report of that one problem."""
    try:
        source = open_source(spec)
    except DataError as error:
        problem = {"file": spec, "problem": str(error).removeprefix(f"{spec}: ")}
        return CheckReport(spec, 0, 0, {}, {}, "", [], [], None, None, None, 0, None, [], 0, [], [problem])
    ids = np.arange(source.count, dtype=np.int64)
    chunks = [ids[a : a + _CHUNK] for a in range(0, len(ids), _CHUNK)]
    total = _Part()
    with ThreadPoolExecutor(decode_threads(source.tree, workers)) as pool:
        for number, part in enumerate(pool.map(lambda chunk: _examine(source, chunk), chunks)):
            _merge(total, part)
            progress("check", min((number + 1) * _CHUNK, source.count), source.count)
    return _report(spec, source, total)


def _examine(source: Source, ids: np.ndarray) -> _Part:
    part = _Part()
    for index, images in _stacks(source, ids, part):
        part.ids.extend(int(i) for i in index)
        part.hashes.extend(hashlib.blake2b(np.ascontiguousarray(x).data, digest_size=16).digest() for x in images)
        part.dtype = images.dtype.name
        shape = images.shape[1:]
        part.shapes[shape] += len(index)
        part.first.setdefault(shape, int(index[0]))
        middle = _pixels(images[:, :, *(slice((n - m) // 2, (n + m) // 2) for n, m in _looked_at(shape))])
        part.noise.extend(estimate_noise(middle).tolist())
        part.coarse.extend(estimate_noise(halved(middle)).tolist())
        rows = max(1, _MOST_PIXELS // (len(index) * shape[0] * shape[2]))
        for top in range(0, shape[1], rows):
            pixels = _pixels(images[:, :, top : top + rows])
            area = float(pixels[:, 0].size)
            moments = np.stack([np.full(shape[0], area), pixels.sum((0, 2, 3)), (pixels**2).sum((0, 2, 3))])
            part.sums[shape[0]] = part.sums.get(shape[0], np.zeros_like(moments)) + moments
            part.low, part.high = min(part.low, float(pixels.min())), max(part.high, float(pixels.max()))
    return part


def _pixels(images: np.ndarray) -> np.ndarray:
    return to_pixels(images).astype(np.float64)


def _looked_at(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """(side, pixels of it that are looked at for noise) down and across: all, or the middle of a huge image."""
    return [(n, min(n, _NOISE_SIDE)) for n in shape[1:]]


def _stacks(source: Source, ids: np.ndarray, part: _Part) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if source.tree is None:
        yield ids, source.read(ids)
        return
    for index in ids:
        try:
            pixels, note = source.tree.decode(int(index))
        except DataError as error:
            part.problems.append((int(index), str(error)))
            continue
        if note is not None:
            part.converted[note] += 1
        yield np.array([index]), pixels[None]


def _merge(total: _Part, part: _Part) -> None:
    for name in ("hashes", "ids", "noise", "coarse", "problems"):
        getattr(total, name).extend(getattr(part, name))
    total.shapes.update(part.shapes)
    total.converted.update(part.converted)
    for shape, index in part.first.items():
        total.first.setdefault(shape, index)
    for channels, moments in part.sums.items():
        total.sums[channels] = total.sums.get(channels, np.zeros_like(moments)) + moments
    if part.dtype != "uint8":
        total.dtype = part.dtype
    total.low, total.high = min(total.low, part.low), max(total.high, part.high)


def _report(spec: str, source: Source, total: _Part) -> CheckReport:
    names = source.tree.images if source.tree is not None else None

    def name(index: int) -> str:
        return printable_line(names[index]) if names is not None else f"image {index}"

    prefix = "" if source.tree is None else source.tree.where("")
    problems = [{"file": name(i), "problem": text.removeprefix(f"{prefix}{name(i)}: ")} for i, text in total.problems]
    problems += _shape_problems(spec, total, name)
    if source.question:
        problems.insert(0, {"file": spec, "problem": source.question})
    places: dict[bytes, list[int]] = {}
    for index, digest in zip(total.ids, total.hashes, strict=True):
        places.setdefault(digest, []).append(index)
    twins = [group for group in places.values() if len(group) > 1]
    channels = max(total.sums, key=lambda c: total.sums[c][0, 0], default=0)
    n, s, q = total.sums.get(channels, np.ones((3, 1)))
    known = None if source.labels is None else source.labels[source.labels >= 0]
    counts = None if known is None else Counter(known.tolist())
    classes = source.classes
    report = CheckReport(
        source=spec,
        count=source.count,
        readable=len(total.ids),
        resolution={f"{w}x{h}": c for (w, h), c in _counted(total.shapes, lambda k: (k[2], k[1]))},
        mode={_MODES[k]: c for k, c in _counted(total.shapes, lambda k: k[0])},
        dtype=total.dtype,
        mean=[float(v) for v in s / n] if channels else [],
        std=[float(v) for v in np.sqrt(np.maximum(q / n - (s / n) ** 2, 0))] if channels else [],
        classes=None if counts is None else len(counts),
        labels=None
        if counts is None
        else {classes[k] if classes and k < len(classes) else str(k): counts[k] for k in sorted(counts)},
        class_names=None if classes is None else list(classes),
        unlabelled=source.count if known is None else source.count - len(known),
        heldout=None if source.heldout is None else int(source.heldout.sum()),
        levels=_levels(source, total),
        duplicates=sum(len(group) - 1 for group in twins),
        duplicate_examples=[[name(i) for i in group[:4]] for group in twins[:5]],
        problems=problems,
        unit=told_in(source.values)[1],
        factor=told_in(source.values)[0],
        value_range=None if source.values is None else [source.values.low, source.values.high],
    )
    report.notes = _notes(source, total, report, name)
    return report


def _counted(shapes: Counter[tuple[int, ...]], key: Callable[[tuple[int, ...]], Any]) -> list[tuple[Any, int]]:
    out: Counter[Any] = Counter()
    for shape, count in shapes.items():
        out[key(shape)] += count
    return out.most_common()


def _shape_problems(spec: str, total: _Part, name: Callable[[int], str]) -> list[dict[str, str]]:
    """Sizes and colour modes other than the commonest, and what no network can halve."""
    problems = []
    least = [min((shape[side] for shape in total.shapes), default=0) for side in (1, 2)]
    for rank, (shape, count) in enumerate(total.shapes.most_common()):
        channels, height, width = shape
        command = prepare_command(spec, least, floats=total.dtype != "uint8")
        what = f"{width} x {height} {_MODES[channels]} ({count} such image{'s' * (count > 1)})"
        if rank > 0:
            problem = f"{what}, unlike most: `{command}` brings them to one size and colour mode"
        elif height != width or width % 2:
            problem = f"{what}: not square with an even side; `{command}` crops and resizes"
        else:
            continue
        problems.append({"file": name(total.first[shape]), "problem": problem})
    return problems


def _numbers(classes: int | None) -> list[str]:
    return [str(k) for k in range(classes or 0)]


def _levels(source: Source, total: _Part) -> list[dict[str, float | int | None]]:
    """One row for each noise level that the source states, with the level that its images themselves suggest, both in
    units of [-1, 1] and as they are told."""
    factor, _ = told_in(source.values)
    noise = np.array(total.noise)
    stated = np.zeros(len(noise)) if source.sigma_n is None else source.sigma_n[np.array(total.ids, np.int64)]
    rows: list[dict[str, float | int | None]] = []
    values, counts = np.unique(stated, return_counts=True)
    for value, count in zip(values[:20], counts[:20], strict=True):
        guess = float(np.median(noise[stated == value]))
        rows.append(
            {
                "sigma": float(value),
                "images": int(count),
                "snr_db": snr_db(float(value)) if value > 0 else None,
                "estimated_sigma": guess if np.isfinite(guess) else None,
                "told": float(value) * factor,
                "estimated_told": guess * factor if np.isfinite(guess) else None,
            }
        )
    return rows


def _notes(source: Source, total: _Part, report: CheckReport, name: Callable[[int], str]) -> list[str]:
    notes = list(source.notes)
    notes += [f"{count:,} converted: {what}" for what, count in total.converted.items()]
    stated = np.zeros(source.count) if source.sigma_n is None else source.sigma_n
    notes += unit_notes(stated, report.dtype == "uint8")
    white = source.pattern is None and source.spectrum is None
    if not white:
        notes.append("levels of noise that is not white are not compared with what the pixels show")
    if len(total.shapes) == 1 and white:
        channels, height, width = next(iter(total.shapes))
        coefficients = channels * (height // 2) * (width // 2)
        ids = np.array(total.ids, np.int64)
        factor, unit = told_in(source.values)
        seen = (stated[ids], np.array(total.noise), np.array(total.coarse), coefficients, report.dtype == "uint8")
        notes += stated_notes(*seen, told=(factor, "" if source.values is None else unit))
        wrong = disagreeing(*seen)
        if stated.any() and len(wrong) > 0:
            shown = [
                f"{name(int(ids[i]))} ({stated[ids[i]] * factor:.3g} stated, {total.noise[i] * factor:.3g} seen)"
                for i in wrong[:4]
            ]
            more = f" and {len(wrong) - 4:,} more" if len(wrong) > 4 else ""
            verb = "contradicts its" if len(wrong) == 1 else "contradict their"
            notes.append(
                f"{len(wrong):,} of {len(ids):,} images {verb} stated level: {', '.join(shown)}{more}; "
                "`ambient data noise` measures them"
            )
    if report.duplicates:
        notes.append(f"{report.duplicates} images are exact copies of others")
    if source.regions is not None:
        notes.append("the patches overlap, so they are not independent images; the held-out part is cut out by place")
    if source.labels is not None and report.unlabelled:
        notes.append(f"{report.unlabelled} images have no label")
    noisy = source.sigma_n is not None and bool(source.sigma_n.any())
    if report.dtype == "uint8" and noisy:
        notes.append(
            "noisy images stored in 8 bits: their noise is rounded and clipped; npz with float32 keeps it whole"
        )
    if report.labels is not None and source.classes is None and list(report.labels) != _numbers(report.classes):
        notes.append("the labels are not 0, 1, ..., classes - 1; class-conditional training counts up to the largest")
    if source.sigma_n is not None and len(np.unique(source.sigma_n)) > 20:
        notes.append("more than 20 noise levels; the table shows the lowest 20")
    return notes
