"""Files of numbers (TIFF, HDF5, FITS, NIfTI, PNG of 16 bits): each holds one image or many, of its own type of values.

A `Format` opens one file and writes one. `FrameTree` strings the images of several files together, as a `Tree` whose
image k is `stack.tif/0007`; they are decoded to float32 pixels by one affine map for all (`data.values`), never through
8 bits. Files of 8 bits keep their 8 bits, and the fixed map of photographs.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from ambient_theory.shared.errors import AmbientError, DataError, first_line
from ambient_theory.shared.limits import MAX_MEMBER_BYTES, MAX_PIXELS
from ambient_theory.shared.plain_text import printable_line
from ambient_train.data.formats.arrays import TRUTH
from ambient_train.data.formats.decode import LUMA, OTHER_MODE, Colour
from ambient_train.data.formats.noise_arrays import StatedNoise
from ambient_train.data.formats.trees import Tree
from ambient_train.data.place import Place
from ambient_train.data.values import ValueMap, find_range

MAX_FRAMES = 10_000_000


@dataclass(frozen=True, eq=False)
class Frames:
    """An open file of `count` images of `shape` (C, H, W). read(k) -> values [C, H, W] of type `dtype`.

    noise: what the file states of it, levels in the units of its values. labels: int64 [count], or None.
    close(): lets go of the file. notes: what of the file is not read, or was changed on the way.
    """

    count: int
    shape: tuple[int, int, int]
    dtype: np.dtype
    read: Callable[[int], np.ndarray]
    close: Callable[[], None] = lambda: None
    noise: StatedNoise = field(default_factory=StatedNoise)
    labels: np.ndarray | None = None
    notes: tuple[str, ...] = ()


class Format(Protocol):
    """What a reader of such files offers beside `Reader`: its endings, and how a file is opened and written."""

    suffixes: tuple[str, ...]

    def open(self, file: BinaryIO, where: str, inside: str) -> Frames:
        """The images of an open file. inside: which data set of it, or "". Any exception is a damaged file."""
        ...

    def write(self, path: Path, images: np.ndarray, like: BinaryIO | None, inside: str) -> None:
        """Images [N, C, H, W] in their own type as a file, with the headers of `like` where one is given."""
        ...


def check_shape(count: int, shape: Sequence[int], dtype: np.dtype, where: str) -> tuple[int, int, int]:
    """(C, H, W) as they are. Raises DataError for other colours than 1 or 3, no pixels, too many, and no numbers."""
    channels, height, width = (int(n) for n in shape)
    if dtype.kind == "c":
        raise DataError(
            f"{where}: complex values; write them as a complex .npy or .npz, which is read as two channels, real and "
            "imaginary part"
        )
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        how = TRUTH[dtype.kind == "b"]
        raise DataError(f"{where}: values of type {dtype} are no numbers that pixels can be made of{how}")
    if channels not in (1, 3):
        raise DataError(
            f"{where}: {channels} channels; images have 1 (grey) or 3 (RGB): export it without alpha, or each channel "
            "as an image of its own"
        )
    if min(count, height, width) < 1 or height * width > MAX_PIXELS or count > MAX_FRAMES:
        raise DataError(f"{where}: {count:,} images of {width} x {height} pixels cannot be used")
    return channels, height, width


def layout(
    shape: Sequence[int], where: str
) -> tuple[int, tuple[int, int, int], Callable[[int], tuple[int, ...]], bool]:
    """How an array is a set of images: their number, (C, H, W), where image k stands, and whether colours come last.

    [H, W]; [N, H, W]; [..., 1 or 3, H, W] or [..., H, W, 1 or 3]; else every leading axis counts images.
    """
    sizes = tuple(int(n) for n in shape)
    if len(sizes) < 2 or min(sizes) < 1:
        raise DataError(f"{where}: shape {sizes} is not a set of images")
    last = len(sizes) >= 3 and sizes[-1] in (1, 3) and min(sizes[-3:-1]) > 3
    first = not last and len(sizes) >= 4 and sizes[-3] in (1, 3)
    inner = 3 if last or first else 2
    lead = sizes[: len(sizes) - inner]
    count = 1
    for n in lead:
        count *= n
    if last:
        chw = (sizes[-1], sizes[-3], sizes[-2])
    else:
        chw = (sizes[-3] if first else 1, sizes[-2], sizes[-1])

    def at(k: int) -> tuple[int, ...]:
        return tuple(int(i) for i in np.unravel_index(k, lead)) if lead else ()

    return count, chw, at, last


def as_chw(image: np.ndarray, last: bool) -> np.ndarray:
    """[C, H, W] of an image [H, W], [C, H, W] or, with colours `last`, [H, W, C]."""
    if image.ndim == 2:
        return image[None]
    return image.transpose(2, 0, 1) if last else image


def as_stored(images: np.ndarray) -> np.ndarray:
    """[N, C, H, W] as files hold it: [N, H, W] or [N, H, W, 3], without the first axis for one image."""
    out = images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(out[0] if len(out) == 1 else out)


@dataclass(frozen=True, eq=False)
class FrameTree(Tree):
    """A `Tree` whose images are the frames of files of numbers; see `frame_tree`.

    members: (file, frame in it) of each image. formats: how each file is read. values: the map to pixels, None for
    files of 8 bits. inside: the data set that is meant. noise: what the files state of it, levels in their own units.
    clean: bool [N], which images are clean where they are counts, None where none is or it does not matter.
    """

    members: tuple[tuple[str, int], ...] = ()
    formats: dict[str, tuple[str, Format]] = field(default_factory=dict, repr=False)
    values: ValueMap | None = None
    inside: str = ""
    noise: StatedNoise = field(default_factory=StatedNoise)
    labels: np.ndarray | None = None
    clean: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    stream: Callable[[str], BinaryIO] = field(default=lambda name: io.BytesIO(), repr=False)
    _open: dict[str, Frames] = field(default_factory=dict, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def states_levels(self) -> bool:
        return self.noise.sigma is not None

    @property
    def in_turn(self) -> bool:
        return len(self.members) > len(self.files) > 1

    def flat_names(self) -> tuple[str, ...]:
        """A file is no folder: `cat/stack.tif/0007` counts as `cat/stack.tif#0007.tif`."""
        return tuple(f"{file}#{frame:07d}{Path(file).suffix}" for file, frame in self.members)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files, in order."""
        return tuple(dict.fromkeys(file for file, _ in self.members))

    def file_where(self, file: str) -> str:
        """The file's name for messages; of a set that is one file, its own."""
        return printable_line(self.root) if not file else super().where(file)

    def where(self, name: str) -> str:
        """See `Tree`; `stack.tif/0007` of a set that is one file, too."""
        return super().where(name) if self.files[0] else printable_line(f"{self.root}/{name}")

    def fingerprint(self) -> str:
        """SHA-256 of names, sizes and content of the files, and of the map."""
        digest = hashlib.sha256(repr((self.files, self.inside, self.values)).encode("utf-8", "surrogateescape"))
        for file in self.files:
            with self.stream(file) as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())  # type: ignore[arg-type]
        return digest.hexdigest()

    def frames(self, file: str) -> Frames:
        """The open file; the one before is let go. Raises DataError naming the file."""
        with self._lock:
            if file not in self._open:
                for other in list(self._open):
                    self._open.pop(other).close()
                form, where = self.formats[file][1], self.file_where(file)
                self._open[file] = open_frames(self.stream(file), form, where, self.inside)
            return self._open[file]

    def raw(self, index: int) -> np.ndarray:
        """Values [C, H, W] of image number `index`, in their own type. Raises DataError naming the image."""
        file, frame = self.members[index]
        with self._lock:
            opened = self.frames(file)
            try:
                with _unheard():
                    values = np.array(opened.read(frame))
            except AmbientError:
                raise
            except Exception as error:  # decoders of hostile bytes may raise anything
                raise DataError(f"{self.where(self.images[index])}: damaged ({first_line(error, 100)})") from None
        if values.shape != opened.shape:
            raise DataError(f"{self.where(self.images[index])}: an image of another shape, {values.shape}")
        return values

    def decode(self, index: int, convert: Colour | None = None) -> tuple[np.ndarray, str | None]:
        """Pixels [C, H, W] of an image: float32 in units of [-1, 1], or uint8; and what was converted."""
        values, where = self.raw(index), self.where(self.images[index])
        if self.values is None:
            if values.dtype != np.uint8:
                raise DataError(f"{where}: values of type {values.dtype} where the other files have 8 bits")
            pixels = values
        else:
            bad = 0 if values.dtype.kind != "f" else int((~np.isfinite(values)).sum())
            if bad:
                raise DataError(
                    f"{where}: {bad:,} of {values.size:,} values are missing (not finite): a missing pixel has no "
                    "noise level; fill them, or leave the image out"
                )
            pixels = self.values.to_pixels(values, clean=self.clean is not None and bool(self.clean[index]))
            if not np.isfinite(pixels).all():
                raise DataError(f"{where}: values beyond what 32-bit floats hold")
        what = None
        if convert is not None and len(pixels) != (3 if convert == "rgb" else 1):
            what = OTHER_MODE[convert]
            pixels = recoloured(pixels, convert)
            self.converted[self.images[index]] = what
        return np.ascontiguousarray(pixels), what

    def colour(self, index: int) -> bool:
        return self.frames(self.members[index][0]).shape[0] == 3


def recoloured(pixels: np.ndarray, colour: Colour) -> np.ndarray:
    """Pixels [..., C, H, W] grey to RGB by repetition; RGB to grey by `LUMA`."""
    if colour == "rgb":
        return np.repeat(pixels, 3, axis=-3)
    grey = np.tensordot(pixels.astype(np.float64), LUMA, ([-3], [0]))[..., None, :, :]
    return np.rint(grey).astype(np.uint8) if pixels.dtype == np.uint8 else grey.astype(np.float32)


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Without the warnings of libraries on damaged files, which name none of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def open_frames(stream: BinaryIO, format: Format, where: str, inside: str) -> Frames:
    """`format.open` of a stream, which is closed with the frames; every way of being damaged is a DataError."""
    try:
        with _unheard():
            opened = format.open(stream, where, inside)
    except AmbientError:
        stream.close()
        raise
    except Exception as error:  # decoders of hostile bytes may raise anything
        stream.close()
        raise DataError(f"{where}: not a file that can be read ({first_line(error, 100)})") from None

    def close() -> None:
        try:
            opened.close()
        except Exception:  # a damaged file need not close well
            pass
        finally:
            stream.close()

    return replace(opened, close=close, dtype=opened.dtype.newbyteorder("="))


def frame_tree(tree: Tree, formats: dict[str, tuple[str, Format]], asked: Place, spec: str) -> FrameTree:
    """The images of all files of `tree`, in order, and the one map of their values to pixels.

    formats: name and format of the reader of each file. Files must agree in their type of values. Raises DataError
    naming the file that cannot be used.
    """

    def stream(name: str) -> BinaryIO:
        path = Path(tree.root, name) if name else Path(tree.root)
        if not (tree.folder or not name):
            return io.BytesIO(tree.read(name))
        try:
            return open(path, "rb")
        except OSError as error:
            raise DataError(f"{printable_line(str(path))}: cannot be read ({error.strerror})") from None

    files = tree.images
    bare = FrameTree(
        **{name: getattr(tree, name) for name in ("root", "images", "other", "sizes", "read", "folder")},
        members=tuple((file, 0) for file in files),
        formats=formats,
        inside=asked.inside,
        stream=stream,
    )
    members: list[tuple[str, int]] = []
    names: list[str] = []
    types: dict[np.dtype, str] = {}
    noise: list[StatedNoise] = []
    labels: list[np.ndarray | None] = []
    said: Counter[str] = Counter()
    for file in files:
        opened = bare.frames(file)
        types.setdefault(opened.dtype, file)
        if opened.count > 1 or not file:
            names += [f"{file}/{k:04d}".lstrip("/") for k in range(opened.count)]
        else:
            names.append(file)
        members += [(file, k) for k in range(opened.count)]
        noise.append(opened.noise)
        labels.append(opened.labels)
        said.update(opened.notes)
    kinds = sorted(types, key=str)
    if len(kinds) > 1:
        shown = "; ".join(f"{printable_line(types[kind]) or spec}: {kind}" for kind in kinds[:3])
        raise DataError(f"{spec}: files of several types of values ({shown}): keep each type in a folder of its own")
    notes = [text if n == 1 else f"{text} (and so in {n - 1:,} more files)" for text, n in said.items()]
    made = replace(bare, images=tuple(names), members=tuple(members), sizes={**tree.sizes, **dict.fromkeys(names, 0)})
    values = None
    if kinds[0] != np.uint8 or asked.mapped:
        kind = formats[files[0]][0]
        values, more = find_range(made.raw, len(names), asked, kinds[0].name, kind, spec)
        notes += more
    return replace(
        made,
        values=values,
        noise=_joined_noise(noise, files, spec),
        labels=_joined(labels, files, spec, "label"),
        notes=tuple(notes),
    )


def _joined(columns: list[np.ndarray | None], files: Sequence[str], spec: str, what: str) -> np.ndarray | None:
    known = [column for column in columns if column is not None]
    if not known:
        return None
    if len(known) < len(columns):
        lacking = files[[column is None for column in columns].index(True)]
        raise DataError(f"{spec}: {printable_line(lacking)} has no {what} where other files state one")
    return np.concatenate(known)


def _joined_noise(parts: Sequence[StatedNoise], files: Sequence[str], spec: str) -> StatedNoise:
    """What all files state. A file of levels beside files of maps counts as one of flat maps."""
    sigma = _joined([part.sigma for part in parts], files, spec, "noise level")
    patterns = [part.pattern for part in parts if part.pattern is not None]
    spectra = [part.spectrum for part in parts]
    if any(spectrum is not None for spectrum in spectra):
        first = spectra[0]
        if first is None or not all(
            s is not None and s.shape == first.shape and np.allclose(s, first) for s in spectra
        ):
            raise DataError(f"{spec}: the files state different spectra of noise: one set has one")
        return StatedNoise(sigma, None, first)
    if not patterns:
        return StatedNoise(sigma)
    shapes = {pattern.shape[1:] for pattern in patterns}
    if len(shapes) > 1:
        raise DataError(f"{spec}: maps of noise of several shapes ({', '.join(map(str, sorted(shapes)))})")
    whole = [
        part.pattern if part.pattern is not None else np.ones((len(part.sigma), *patterns[0].shape[1:]), np.float32)
        for part in parts
        if part.sigma is not None
    ]
    return StatedNoise(sigma, np.concatenate(whole))


def too_large(size: int, where: str) -> None:
    """Raise DataError beyond MAX_MEMBER_BYTES."""
    if size > MAX_MEMBER_BYTES:
        raise DataError(f"{where}: {size:,} bytes, more than the limit of {MAX_MEMBER_BYTES:,}")
