"""The folder of a restoration: what it is of, its finished chunks, and what they become.

    restoration.json (sealed) -> chunks/00000.npz + its sealed hash -> restored.npz, restored/, scores.json, grid.png
    -> result.json (sealed) last; then the chunks go

A chunk is a fixed number of noisy images, so that whoever computes it, and when, its numbers are the same. A killed
restoration continues with the chunks that are missing or do not hold; a folder of another network, other images or
other settings is refused with what differs.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import atomic_file, atomic_write_bytes, is_free, read_sealed, write_sealed
from ambient_theory.shared.kinds import OBJECT, check_kinds
from ambient_train.data.formats.frames import FrameTree
from ambient_train.data.formats.mapped import IN_DATA, KEY
from ambient_train.data.images import save_grid, to_own, to_uint8
from ambient_train.data.prepare.archives import npy_stream, write_npy
from ambient_train.tasks.restore_inputs import Noisy

SCHEMA, CHUNK_SCHEMA, RESULT_SCHEMA = "ambient.restoration/1", "ambient.restoration-chunk/1", "ambient.restored/1"
ROWS = 1024
"""Samples in a chunk: what is lost when a process is killed."""
SUMMARY = ("sample", "sample_mean", "std", "q05", "q50", "q95")
IN_VALUES = "values_"
"""Begins the names of what a chunk holds in the units of the files, where that is no map of what it holds in pixels."""
_BLOCK, _SHOWN = 1024, 8
_LOSSLESS = ("png", "bmp", "tif", "tiff", "ppm", "pgm")

Images = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class RestorationFolder:
    """path: the folder. identity: what it is of, two levels of JSON. samples, keep_samples: of the options."""

    path: Path
    identity: Mapping[str, Mapping[str, Any]]
    noisy: Noisy
    samples: int
    keep_samples: bool
    _rows: npt.NDArray[np.intp] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rows", self.noisy.rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the arrays of restored images."""
        every = ("samples",) if self.keep_samples else ()
        return ("images", *(SUMMARY if self.samples else ()), *every)

    @property
    def averages(self) -> tuple[str, ...]:
        """Columns that are computed in the units of the files, apart from those in pixels: of counts."""
        if not (self.noisy.of_counts and self.samples):
            return ()
        return tuple(name for name in self.columns if name not in ("sample", "samples"))

    @property
    def chunk_size(self) -> int:
        """Noisy images in a chunk."""
        return max(1, ROWS // max(self.samples, 1))

    @property
    def chunks(self) -> int:
        return -(-len(self._rows) // self.chunk_size)

    def rows_of(self, chunk: int) -> npt.NDArray[np.intp]:
        """Positions of the images of a chunk."""
        return self._rows[chunk * self.chunk_size : (chunk + 1) * self.chunk_size]

    def check(self) -> None:
        """Raise UsageError unless the folder is free or holds this very restoration. Nothing is written."""
        stored = self._claimed()
        if stored is None:
            if not is_free(self.path):
                raise UsageError(f"{self.path} is not empty and holds no restoration: choose another --outdir")
            return
        pairs = [(group, key) for group, values in self.identity.items() for key in values]
        different = [
            f"{key.replace('_', ' ')} {stored[group].get(key)}, asked {self.identity[group][key]}"
            for group, key in pairs
            if stored[group].get(key) != self.identity[group][key]
        ]
        if different:
            raise UsageError(
                f"{self.path} holds another restoration ({'; '.join(different)}): "
                "use the same network, images and settings to continue it, or another --outdir"
            )

    def _claimed(self) -> dict[str, Any] | None:
        file = self.path / "restoration.json"
        if not file.exists():
            return None
        stored = read_sealed(file)
        try:
            check_kinds(stored, dict.fromkeys(self.identity, OBJECT))
        except DataError as error:
            raise DataError(f"{file}: {error}") from None
        return {group: stored.get(group) or {} for group in self.identity}

    def claim(self) -> None:
        """Write down whose folder it is."""
        self.check()
        if self._claimed() is None:
            write_sealed(self.path / "restoration.json", {"schema": SCHEMA, **self.identity})

    def result(self) -> dict[str, Any] | None:
        """The sealed result, where the restoration is finished and its arrays are still there; else None."""
        try:
            stored = read_sealed(self.path / "result.json")
        except DataError:
            return None
        return stored if stored.get("schema") == RESULT_SCHEMA and (self.path / "restored.npz").is_file() else None

    # ------------------------------------------------------------------------------------------------------- chunks

    def missing(self) -> list[int]:
        """Chunks that are not there or do not hold."""
        return [k for k in range(self.chunks) if not self._holds(k)]

    def _file(self, chunk: int) -> Path:
        return self.path / "chunks" / f"{chunk:05d}.npz"

    def _holds(self, chunk: int) -> bool:
        try:
            seal = read_sealed(self._file(chunk).with_suffix(".json"))
            return bool(seal["file_sha256"] == hashlib.sha256(self._file(chunk).read_bytes()).hexdigest())
        except (DataError, OSError, KeyError):
            return False

    def write_chunk(self, chunk: int, arrays: Mapping[str, Images]) -> None:
        """The arrays first, then the seal."""
        data = io.BytesIO()
        names = (*self.columns, *(IN_VALUES + name for name in self.averages))
        chosen: dict[str, Any] = {name: arrays[name] for name in names}
        np.savez(data, **chosen)
        atomic_write_bytes(self._file(chunk), data.getvalue())
        digest = hashlib.sha256(data.getvalue()).hexdigest()
        write_sealed(self._file(chunk).with_suffix(".json"), {"schema": CHUNK_SCHEMA, "file_sha256": digest})

    def read_chunk(self, chunk: int, *names: str) -> dict[str, Images]:
        """Some arrays of a chunk."""
        with np.load(self._file(chunk), allow_pickle=False) as stored:
            return {name: stored[name] for name in names or self.columns}

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Seal the result and let the chunks go."""
        write_sealed(self.path / "result.json", {"schema": RESULT_SCHEMA, **result})
        self.clear()
        return read_sealed(self.path / "result.json")

    def clear(self) -> None:
        """Remove chunks that are in restored.npz."""
        shutil.rmtree(self.path / "chunks", ignore_errors=True)

    # ------------------------------------------------------------------------------------------------------ outputs

    def blocks(self, name: str, *, own: bool = False) -> Iterator[tuple[int, Images]]:
        """(first position, values) of a column over all images, a block at a time; clean images are what they were.

        own: in the units of the files, where those were mapped to pixels.
        """
        images = self.noisy.images
        stored = IN_VALUES + name if own and name in self.averages else name
        shape = (self.samples, *images.images.shape[1:]) if name == "samples" else images.images.shape[1:]
        loaded, values = -1, np.empty((0, *shape), np.float32)
        for start in range(0, len(images), _BLOCK):
            stop = min(start + _BLOCK, len(images))
            block = np.zeros((stop - start, *shape), np.float32)
            if name != "std":
                pixels = images.pixels(slice(start, stop))
                if own:
                    pixels = self._in_values(name, pixels)
                block[:] = pixels[:, None] if name == "samples" else pixels
            first, last = np.searchsorted(self._rows, (start, stop))
            for number in range(first, last):
                chunk, place = divmod(number, self.chunk_size)
                if chunk != loaded:
                    loaded, values = chunk, self.read_chunk(chunk, stored)[stored]
                    if own and stored == name:
                        values = self._in_values(name, values)
                block[self._rows[number] - start] = values[place]
            yield start, block

    def _in_values(self, name: str, pixels: Images) -> Images:
        """Numbers of a column in pixels as those of the files: through the map, deviations through its unit."""
        values = self.noisy.images.values
        if values is None:
            return pixels
        return (pixels * values.unit if name == "std" else values.to_values(pixels)).astype(np.float32)

    def write_arrays(self) -> Path:
        """`restored.npz`: the columns, ids, labels and classes, the levels that the images had, what is held out.

        Where the images are numbers of files (`data.values`), all are in the units of those, and the map stands beside.
        """
        images, heldout, path = self.noisy.images, self.noisy.heldout, self.path / "restored.npz"
        values = images.values
        unit = 1.0 if values is None else values.unit
        extra: dict[str, np.ndarray | None] = {
            "ids": images.ids,
            "noise_before": (self.noisy.sigma_n * unit).astype(np.float32),
            KEY: None if values is None else values.to_bytes(**{IN_DATA: True}),
            "labels": images.labels,
            "classes": None if images.classes is None else np.array(images.classes),
            "heldout": None if heldout is None or heldout.all() or not heldout.any() else heldout,
        }
        shape = images.images.shape
        with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name in self.columns:
                full = (shape[0], self.samples, *shape[1:]) if name == "samples" else shape
                with npy_stream(archive, name, np.dtype(np.float32), full) as stream:
                    for _, block in self.blocks(name, own=True):
                        stream.write(np.ascontiguousarray(block, np.float32).tobytes())
            for name, column in extra.items():
                if column is not None:
                    write_npy(archive, name, column)
        return path

    def write_files(self) -> Path | None:
        """`restored/`: for images that came as files, one a file under its own name, clean ones byte for byte; else a
        file of arrays again."""
        tree, array = self.noisy.tree, self.noisy.file
        if array is not None:
            path = self.path / "restored" / array.name
            path.parent.mkdir(parents=True, exist_ok=True)
            array.write(path, self._restored())
            return path.parent
        if tree is None:
            return None
        if isinstance(tree, FrameTree):
            return self._write_frames(tree)
        taken, folder = set(tree.images), self.path / "restored"
        for start, block in self.blocks("images"):
            for k, pixels in enumerate(block):
                name = tree.images[int(self.noisy.images.ids[start + k])]
                clean = self.noisy.sigma_n[start + k] == 0
                file = folder / (name if clean else lossless_name(name, taken))
                file.parent.mkdir(parents=True, exist_ok=True)
                if clean:
                    file.write_bytes(tree.read(name))
                else:
                    image = to_uint8(pixels).transpose(1, 2, 0)
                    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(file)
        return folder

    def _write_frames(self, tree: FrameTree) -> Path:
        """`restored/`: each file again, in its format and type; images that are clean, or not among these, as there."""
        folder, restored = self.path / "restored", self._restored()
        of_file: dict[str, list[int]] = {}
        for index, (file, _) in enumerate(tree.members):
            of_file.setdefault(file, []).append(index)
        for file, indices in of_file.items():
            chosen = [restored.get(index) for index in indices]
            path = folder / (file or Path(tree.root).name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if all(pixels is None for pixels in chosen):
                with tree.stream(file) as stream:
                    path.write_bytes(stream.read())
                continue
            images = [
                tree.raw(index) if pixels is None else to_own(pixels, tree.values)
                for index, pixels in zip(indices, chosen, strict=True)
            ]
            with tree.stream(file) as like:
                tree.formats[file][1].write(path, np.stack(images), like, tree.inside)
        return folder

    def _restored(self) -> dict[int, Images]:
        """The posterior mean of each noisy image, by its id: pixels that stand for it in the files."""
        values, own = self.noisy.images.values, bool(self.averages)
        found: dict[int, Images] = {}
        for start, block in self.blocks("images", own=own):
            pixels = values.to_pixels(block, clean=True) if own and values is not None else block
            noisy = np.flatnonzero(self.noisy.sigma_n[start : start + len(block)] > 0)
            found |= {int(self.noisy.images.ids[start + k]): pixels[k] for k in noisy}
        return found

    def write_grid(self) -> Path:
        """`grid.png`, a row an image: noisy, posterior mean, one sample, standard deviation, original where known."""
        shown = np.unique(np.linspace(0, len(self._rows) - 1, min(_SHOWN, len(self._rows))).round().astype(int))
        tiles: list[Images] = []
        for number in shown:
            chunk, place = divmod(int(number), self.chunk_size)
            row, found = self._rows[number], self.read_chunk(chunk)
            tiles += [self.noisy.images.pixels(slice(row, row + 1))[0], found["images"][place]]
            if self.samples:
                deviation = found["std"][place]
                tiles += [found["sample"][place], 2 * deviation / max(float(deviation.max()), 1e-12) - 1]
            if self.noisy.originals is not None:
                tiles.append(self.noisy.originals[row])
        save_grid(to_uint8(np.stack(tiles)), self.path / "grid.png", columns=len(tiles) // len(shown))
        return self.path / "grid.png"


def lossless_name(name: str, taken: set[str]) -> str:
    """Its own name of an image file of a kind that keeps every value; another ending becomes .png, or gets it where
    that is taken."""
    stem, _, ending = name.rpartition(".")
    if ending.lower() in _LOSSLESS:
        return name
    short = f"{stem}.png"
    return f"{name}.png" if any(other.rpartition(".")[0] == stem and other != name for other in taken) else short
