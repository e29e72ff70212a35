"""Archives for training from whatever holds images: decoded, cropped, resized, written in EDM's zip layout or as npz.

Work goes through `DEST.partial/`: finished chunks of pixels are appended to one file, and a journal, flushed after
them, says what is good. A process killed at any moment is continued by the same command, and the archive (built from
the pixels in one pass, flushed, renamed onto DEST) has the same bytes as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import content_hash, exclusive_lock, flushed
from ambient_theory.shared.parsing import parse_json
from ambient_train.data.formats.decode import OTHER_MODE, Colour, noise_factor
from ambient_train.data.formats.frames import recoloured
from ambient_train.data.formats.trees import decode_threads
from ambient_train.data.load import Split, split_ids, subset_ids
from ambient_train.data.place import place
from ambient_train.data.prepare.archives import finished_config, write_archive
from ambient_train.data.prepare.geometry import Geometry
from ambient_train.data.prepare.options import PrepareOptions
from ambient_train.data.readers import open_source
from ambient_train.data.source import Source

SCHEMA, JOURNAL_SCHEMA = "ambient.prepare/1", "ambient.prepare-journal/2"
CHUNK = 256
KINDS = {".zip": "zip", ".npz": "npz"}
_PROBES = 64


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(PrepareOptions):
    """What determines the archive. Raises UsageError for options that make no sense, alone or together."""

    source: str
    dest: Path

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.geometry
        if self.dest.suffix.lower() not in KINDS:
            raise UsageError(f"{self.dest}: the archive must end in .zip (EDM's layout) or .npz")

    @cached_property
    def geometry(self) -> Geometry:
        """What is done with the shape of an image."""
        return Geometry.parse(self.transform, self.resolution, self.filter)

    @property
    def kind(self) -> str:
        """`zip` or `npz`."""
        return KINDS[self.dest.suffix.lower()]


@dataclass(frozen=True)
class PrepareResult:
    """What was written, and what had to be done for it. status: `written`, or `done` where it was there already."""

    dest: str
    status: str
    count: int
    shape: tuple[int, ...]
    labelled: bool
    noisy: int
    sha256: str
    resumed_from: int = 0
    converted: dict[str, int] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {
            "schema": SCHEMA,
            **self.__dict__,
            "shape": list(self.shape),
            "skipped": [list(s) for s in self.skipped],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class _Chunk:
    pixels: np.ndarray
    ids: np.ndarray
    noise: np.ndarray
    converted: Counter[str]
    skipped: list[tuple[str, str]]


def fingerprint(source: Source, spec: str) -> str:
    """Hash of the names and sizes of a tree, of the bytes of a file, or of the name of a built-in set."""
    if source.tree is not None:
        return source.tree.fingerprint()
    path = place(spec).path
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if path.is_dir():
        return content_hash(sorted([p.name, p.stat().st_size] for p in path.iterdir() if p.is_file()), 64)
    return content_hash([source.name, source.count], 64)


def known_hash(source: Source) -> str:
    """Hash of labels, noise levels and held-out part: a table may change without a change of any size."""
    digest = hashlib.sha256()
    for column in (source.labels, source.sigma_n, source.heldout, source.group):
        digest.update(b"none" if column is None else column.dtype.str.encode() + column.tobytes())
    return digest.hexdigest()


def choose_colour(source: Source, ids: np.ndarray, colour: str) -> Colour:
    """`auto`: RGB if any of 64 images spread over the source has colour (unreadable ones do not vote), else grey."""
    if colour in ("rgb", "grey"):
        return "rgb" if colour == "rgb" else "grey"
    if source.tree is None:
        return "rgb" if source.read(ids[:1]).shape[1] == 3 else "grey"
    for index in ids[np.unique(np.linspace(0, len(ids) - 1, _PROBES).astype(int))]:
        try:
            if source.tree.colour(int(index)):
                return "rgb"
        except DataError:
            continue
    return "grey"


class Preparation:
    """One run of `prepare`: the opened source, the chosen images and colour, and the decoding of one chunk."""

    def __init__(self, config: PrepareConfig):
        self.config = config
        self.source = open_source(config.source)
        if self.source.question:
            raise DataError(f"{config.source}: {self.source.question}")
        if self.source.pattern is not None or self.source.spectrum is not None:
            raise DataError(
                f"{config.source}: its noise is not white, and cropping, resizing and converting keep white noise "
                "only: train on it as it is (`--resolution` averages whole blocks)"
            )
        self.ids = subset_ids(split_ids(self.source, cast(Split, config.split), None), config.max_images)
        self.colour = choose_colour(self.source, self.ids, config.colour)
        geometry = config.geometry
        self.identity: dict[str, Any] = {
            "schema": SCHEMA,
            "source": fingerprint(self.source, config.source),
            "known": known_hash(self.source),
            "kind": config.kind,
            "transform": [geometry.transform, geometry.width, geometry.height, geometry.filter],
            "colour": self.colour,
            "asked_colour": config.colour,
            "split": config.split,
            "max_images": config.max_images,
            "skip_bad": config.skip_bad,
            "strict": config.strict,
        }
        if self.source.values is not None:
            self.identity["values"] = self.source.values.to_dict()
        recolours = self.source.tree is not None or config.colour != "auto"
        if recolours and self.source.sigma_n is not None and self.source.sigma_n.any():
            self.identity["levels"] = "of the colours written"  # archives made before that stated those read
        self.hash = content_hash(self.identity, 64)

    def where(self, index: int) -> str:
        """Name of an image for messages."""
        tree = self.source.tree
        return f"{self.config.source}: image {index}" if tree is None else tree.where(tree.images[index])

    def chunk(self, ids: np.ndarray) -> _Chunk:
        """Decode and transform some images, in order."""
        converted: Counter[str] = Counter()
        skipped: list[tuple[str, str]] = []
        kept, noise, pixels = [], [], []
        for index, stack, colour_factor in self._decoded(ids, converted, skipped):
            where = self.where(int(index[0]))
            height, width = stack.shape[-2:]
            if self.config.geometry.enlarges(height, width):
                converted["enlarged"] += len(index)
            pixels.append(self.config.geometry.apply(stack, where))
            factor = colour_factor
            if len(self._noisy(index)):
                factor *= self.config.geometry.noise_factor(height, width, where)
            kept.append(index)
            noise.append(np.full(len(index), factor))
            if pixels[-1].shape[1:] != pixels[0].shape[1:]:
                raise DataError(self._mixed(where, pixels[-1], pixels[0]))
        if not kept:
            return _Chunk(np.empty((0,), np.uint8), np.empty(0, np.int64), np.empty(0), converted, skipped)
        return _Chunk(np.concatenate(pixels), np.concatenate(kept), np.concatenate(noise), converted, skipped)

    def _mixed(self, where: str, a: np.ndarray, b: np.ndarray) -> str:
        return (
            f"{where}: {a.shape[-1]} x {a.shape[-2]} pixels where others are {b.shape[-1]} x {b.shape[-2]}; "
            "give --resolution and --transform to bring them to one size"
        )

    def _noisy(self, index: np.ndarray) -> np.ndarray:
        """Those of the images that came with noise."""
        return index[:0] if self.source.sigma_n is None else index[self.source.sigma_n[index] > 0]

    def _colour_factor(self, index: np.ndarray, what: str, converted: Counter[str]) -> float:
        """What a conversion of colours makes of the deviation of the images' noise; counts it.

        Raises DataError where noise would not stay white.
        """
        noisy = self._noisy(index)
        if not len(noisy):
            converted[what] += len(index)
            return 1.0
        where, factor = self.where(int(noisy[0])), noise_factor(what, self.colour)
        if factor is None:
            mode, instead = "grey", "it as plain grey or RGB"
            if self.colour == "rgb":
                mode, instead = "RGB", "--colour grey, or plain images of one colour mode"
            raise DataError(
                f"{where}: {what}, and noisy: made {mode}, its noise would be white no more; give {instead}"
            )
        if factor != 1 and self.source.values is not None and self.source.values.counts is not None:
            raise DataError(
                f"{where}: {what} of noisy counts, and grey made of transformed counts stands for no count: leave "
                "--colour out, or give each channel as an image of its own"
            )
        lowered = "" if factor == 1 else f" with noise, whose level is {factor:.4g} of that stated"
        converted[what + lowered] += len(noisy)
        converted[what] += len(index) - len(noisy)
        return factor

    def _decoded(
        self, ids: np.ndarray, converted: Counter[str], skipped: list[tuple[str, str]]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
        """Triples (ids, images [m, C, H, W], what became of the deviation of their noise); one image at a time where
        sizes may differ, the whole chunk elsewhere."""
        tree = self.source.tree
        if tree is None:
            stack, factor = self.source.read(ids), 1.0
            if stack.shape[1] == 2 and self.config.colour != "auto":
                raise UsageError(
                    f"{self.where(int(ids[0]))}: real and imaginary part have no colours; leave --colour out"
                )
            if stack.shape[1] != 2 and stack.shape[1] != (3 if self.colour == "rgb" else 1):
                factor = self._colour_factor(ids, OTHER_MODE[self.colour], converted)
                stack = recoloured(stack, self.colour)
            yield ids, stack, factor
            return
        for index in ids:
            try:
                pixels, note = tree.decode(int(index), None if self.config.strict else self.colour)
                if len(pixels) != (3 if self.colour == "rgb" else 1):
                    raise DataError(f"{self.where(int(index))}: another colour mode than the rest; leave --strict out")
                if OTHER_MODE["grey"] in (note or "") and self.config.colour == "auto":
                    raise UsageError(
                        f"{self.where(int(index))}: in colour, where the images looked at first are grey; "
                        "give --colour rgb or --colour grey"
                    )
                factor = self._colour_factor(np.array([index]), note, converted) if note is not None else 1.0
            except DataError as error:
                if not self.config.skip_bad:
                    raise
                message = str(error)
                skipped.append((tree.images[int(index)], message.removeprefix(f"{self.where(int(index))}: ")))
                continue
            yield np.array([index]), pixels[None], factor


class Journal:
    """The pixels done so far (`pixels.bin`) and the lines that vouch for them and for themselves (`journal.jsonl`)."""

    PIXELS, LINES = "pixels.bin", "journal.jsonl"

    def __init__(self, directory: Path, identity_hash: str):
        self.pixels_path, self.lines_path = directory / self.PIXELS, directory / self.LINES
        self.header = {"schema": JOURNAL_SCHEMA, "hash": identity_hash, "chunk": CHUNK}
        self.lines: list[dict[str, Any]] = []
        self.size = 0
        good = self._verified()
        with flushed(open(self.lines_path, "w" if not good else "r+", encoding="utf-8")) as file:
            if not good:
                file.write(json.dumps(self.header) + "\n")
            else:
                file.truncate(good)
        with open(self.pixels_path, "ab") as file:
            file.truncate(self.size)

    @classmethod
    def belongs_to(cls, directory: Path, identity_hash: str) -> bool:
        """Whether the directory holds no journal, or the journal of this preparation."""
        try:
            with open(directory / cls.LINES, encoding="utf-8") as file:
                return parse_json(file.readline()).get("hash") == identity_hash
        except FileNotFoundError:
            return True
        except (OSError, ValueError, AttributeError):
            return False

    def _verified(self) -> int:
        """Read back lines and check their pixels; the length in bytes of the journal that holds."""
        try:
            content = self.lines_path.read_bytes()
            lines = content.split(b"\n")[:-1]
            if not lines or parse_json(lines[0]) != self.header:
                return 0
            good = len(lines[0]) + 1
            with open(self.pixels_path, "rb") as pixels:
                for number, text in enumerate(lines[1:]):
                    line = parse_json(text)
                    if not isinstance(line, dict) or line.pop("sha256", "") != content_hash(line, 16):
                        break
                    data = pixels.read(line["bytes"])
                    if line["number"] != number or len(data) != line["bytes"] or zlib.crc32(data) != line["crc"]:
                        break
                    self.lines.append(line)
                    self.size += len(data)
                    good += len(text) + 1
        except (OSError, ValueError, KeyError, TypeError):
            if not self.lines:
                return 0
        return good

    @property
    def shape(self) -> tuple[str, list[int]] | None:
        """Type and shape of one image, once there is one."""
        return next(((line["dtype"], line["shape"]) for line in self.lines if line["ids"]), None)

    def append(self, chunk: _Chunk) -> None:
        """Write pixels, flush them to disk, then the line that vouches for them."""
        data = np.ascontiguousarray(chunk.pixels).tobytes()
        with flushed(open(self.pixels_path, "ab")) as file:
            file.write(data)
        line = {
            "number": len(self.lines),
            "bytes": len(data),
            "crc": zlib.crc32(data),
            "dtype": chunk.pixels.dtype.str,
            "shape": list(chunk.pixels.shape[1:]),
            "ids": chunk.ids.tolist(),
            "noise": chunk.noise.tolist() if (chunk.noise != 1).any() else None,
            "converted": dict(+chunk.converted),
            "skipped": chunk.skipped,
        }
        with flushed(open(self.lines_path, "a", encoding="utf-8")) as file:
            file.write(json.dumps({**line, "sha256": content_hash(line, 16)}) + "\n")
        self.lines.append(line)
        self.size += len(data)

    def remove(self) -> None:
        """Delete both files."""
        for path in (self.pixels_path, self.lines_path):
            path.unlink(missing_ok=True)


def partial_path(dest: Path) -> Path:
    """Directory beside DEST that holds unfinished work."""
    return dest.with_name(dest.name + ".partial")


def _remove_work(dest: Path, identity_hash: str) -> None:
    """Remove what is left of the work for a finished DEST, whose process was killed before it could; not another's."""
    partial = partial_path(dest)
    if not partial.is_dir():
        return
    with exclusive_lock(partial / "lock") as mine:
        if mine and Journal.belongs_to(partial, identity_hash):
            for name in (Journal.PIXELS, Journal.LINES):
                (partial / name).unlink(missing_ok=True)
            _remove_empty(partial)


def _remove_empty(partial: Path) -> None:
    """Remove a directory that holds no more than a lock, which another process may be asking for just now."""
    (partial / "lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        partial.rmdir()


def prepare(
    config: PrepareConfig,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> PrepareResult:
    """Write the archive that `config` describes; the same call continues an interrupted one.

    workers: threads that decode (default: one a core, one for small files; always one for several stacks); no byte
        depends on it.
    progress(stage, done, total) is called with images done in the stages `decode` and `write`. Raises UsageError where
    DEST holds something else, DataError naming the file that cannot be used.
    """
    work = Preparation(config)
    workers = decode_threads(work.source.tree, workers)
    if config.dest.exists() and not overwrite:
        done = finished_config(config.dest)
        if done is not None and done.get("hash") == work.hash:
            _remove_work(config.dest, work.hash)
            return _result(work, done, "done", 0)
        raise UsageError(f"{config.dest} exists and was not made by this command; choose another name or --overwrite")
    if not config.dest.parent.is_dir():
        raise DataError(f"{config.dest.parent}: no such directory")
    partial = partial_path(config.dest)
    partial.mkdir(exist_ok=True)
    with exclusive_lock(partial / "lock") as mine:
        if not mine:
            raise UsageError(f"{partial}: another process is preparing this archive")
        journal = Journal(partial, work.hash)
        resumed = sum(len(line["ids"]) for line in journal.lines)
        finished = False
        try:
            _decode_all(work, journal, workers, progress)
            summary = _summary(work, journal)
            write_archive(config.dest, config.kind, journal.pixels_path, summary, progress)
            finished = True
        finally:
            if finished or journal.size == 0:
                journal.remove()
                _remove_empty(partial)
    return _result(work, summary, "written", resumed)


def _decode_all(work: Preparation, journal: Journal, workers: int, progress: Callable[[str, int, int], None]) -> None:
    chunks = [work.ids[a : a + CHUNK] for a in range(0, len(work.ids), CHUNK)]
    progress("decode", len(journal.lines) * CHUNK, len(work.ids))
    pending: deque[Future[_Chunk]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            todo = iter(chunks[len(journal.lines) :])
            for ids in todo:
                pending.append(pool.submit(work.chunk, ids))
                if len(pending) > 2 * workers:
                    _store(work, journal, pending.popleft().result())
                    progress("decode", min(len(journal.lines) * CHUNK, len(work.ids)), len(work.ids))
            while pending:
                _store(work, journal, pending.popleft().result())
                progress("decode", min(len(journal.lines) * CHUNK, len(work.ids)), len(work.ids))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _store(work: Preparation, journal: Journal, chunk: _Chunk) -> None:
    shape = journal.shape
    if shape is not None and len(chunk.ids) and list(chunk.pixels.shape[1:]) != shape[1]:
        raise DataError(work._mixed(work.where(int(chunk.ids[0])), chunk.pixels, np.empty(shape[1])))
    if work.config.kind == "zip" and chunk.pixels.dtype != np.uint8:
        raise DataError(f"{work.config.source}: holds floats, which PNGs cannot; give a destination that ends in .npz")
    journal.append(chunk)


def _summary(work: Preparation, journal: Journal) -> dict[str, Any]:
    shape = journal.shape
    if shape is None:
        raise DataError(f"{work.config.source}: not one image of it can be used")
    ids = np.concatenate([np.array(line["ids"], np.int64) for line in journal.lines])
    noise = np.concatenate([np.array(line["noise"] or [1.0] * len(line["ids"])) for line in journal.lines])
    labels = None if work.source.labels is None else work.source.labels[ids]
    sigma = None if work.source.sigma_n is None else (work.source.sigma_n[ids] * noise).astype(np.float32)
    converted: Counter[str] = Counter()
    for line in journal.lines:
        converted.update(line["converted"])
    return {
        "schema": SCHEMA,
        "hash": work.hash,
        "config": work.identity,
        "count": len(ids),
        "dtype": shape[0],
        "shape": shape[1],
        "labels": None if labels is None or (labels < 0).any() else labels.tolist(),
        "label_names": list(work.source.classes) if work.source.classes else None,
        "sigma": None if sigma is None or not sigma.any() else sigma.tolist(),
        "group": None if work.source.group is None else work.source.group[ids].tolist(),
        "converted": dict(sorted(converted.items())),
        "skipped": [list(item) for line in journal.lines for item in line["skipped"]],
        "values": work.source.values,
    }


def _result(work: Preparation, summary: dict[str, Any], status: str, resumed: int) -> PrepareResult:
    with open(work.config.dest, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return PrepareResult(
        dest=str(work.config.dest),
        status=status,
        count=summary["count"],
        shape=tuple(summary["shape"]),
        labelled=summary["labels"] is not None,
        noisy=sum(level > 0 for level in summary["sigma"] or []),
        sha256=digest,
        resumed_from=resumed,
        converted=summary["converted"],
        skipped=[(name, reason) for name, reason in summary["skipped"]],
        notes=work.source.notes,
    )
