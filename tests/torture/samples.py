"""Small intact files of every kind that the readers of numbers know, as bytes: what the campaign on files damages."""

from __future__ import annotations

import functools
import gzip
import io
import json
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from data_files import (
    cifar_batches,
    cifar_binary_files,
    cifar_python_files,
    edm_files,
    encode,
    idx_bytes,
    png,
    rgb,
    write_tar,
)
from number_files import counts, fits, gzipped, hdf5, nifti, png16
from PIL import Image

from ambient_train.data.formats.png import SIGNATURE, chunk

SIDE = 16
_REFUSED = ("elsewhere.h5", "hcompress_1.fits", "plio_1.fits")


@dataclass(frozen=True)
class Sample:
    """files: by name, relative to a folder. spec: the source that they are, in that folder. damage: those to damage.
    refused: whether even the intact ones are. sealed: whether there are seals and hashes to be made to fit again.
    ways: how it is read, where not in each of its reader's ways."""

    reader: str
    files: Mapping[str, bytes]
    spec: str
    damage: tuple[str, ...]
    refused: bool = False
    sealed: bool = False
    ways: tuple[str, ...] = ()


@functools.cache
def samples() -> dict[str, Sample]:
    """Every sample by name, the same bytes each time but for the time of day in two HDF5 files."""
    with tempfile.TemporaryDirectory() as name, mock.patch("time.time", return_value=1e9), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = Path(name)
        alone = {**_tiffs(root), **_hdf5s(root), **_fits(root), **_niftis(root), **_pngs(root), **_arrays(root)}
        alone |= _databases(root)
        made = {
            name: Sample(reader, {name: data}, name + tail, (name,), refused=name in _REFUSED)
            for name, (reader, tail, data) in alone.items()
        }
        made |= _folders({name: data for name, (_, _, data) in alone.items()})
        return made | _pictures() | _described() | _noise_arrays(root) | _idx() | _cifar(root)


_Files = dict[str, tuple[str, str, bytes]]
"""name -> (reader, what follows the name in the spec, bytes)"""


def _written(root: Path, reader: str, name: str, write: Callable[[Path], object], tail: str = "") -> _Files:
    write(root / name)
    return {name: (reader, tail, (root / name).read_bytes())}


def _tiffs(root: Path) -> _Files:
    grey, rgb = counts(4, SIDE), counts(12, SIDE).reshape(3, 4, SIDE, SIDE).transpose(1, 2, 3, 0)
    byte = (grey // 16).astype(np.uint8)
    stacks: dict[str, tuple[np.ndarray, dict[str, object]]] = {
        "plain.tif": (grey, {}),
        "floats.tif": (grey.astype(np.float32), {"byteorder": ">"}),
        "colour.tif": (rgb, {}),
        "planar.tif": (rgb.transpose(0, 3, 1, 2), {"planarconfig": "separate", "photometric": "rgb"}),
        "big.tif": (grey, {"bigtiff": True}),
        "ome.tif": (grey, {"ome": True, "metadata": {"axes": "ZYX", "UUID": "0" * 32}}),
        "imagej.tif": (grey, {"imagej": True}),
        "whole.tif": (grey, {"imagej": True, "truncate": True}),
        "deflate.tif": (grey, {"compression": "zlib", "predictor": False}),
        "tiles.tif": (counts(2, 2 * SIDE), {"tile": (SIDE, SIDE)}),
        "strips.tif": (grey.astype(np.int32), {"rowsperstrip": 3}),
    }
    found: _Files = {}
    for name, (images, options) in stacks.items():
        options = {"photometric": "rgb" if images.shape[-1] == 3 else "minisblack", **options}

        def write(path: Path, images: np.ndarray = images, options: dict[str, object] = options) -> None:
            import tifffile

            tifffile.imwrite(path, images, **options)

        found |= _written(root, "tiff", name, write)

    def pyramid(path: Path) -> None:
        import tifffile

        with tifffile.TiffWriter(path) as writer:
            writer.write(grey[0], subifds=1)
            writer.write(grey[0, ::2, ::2], subfiletype=1)

    found |= _written(root, "tiff", "pyramid.tif", pyramid)
    for method in ("packbits", "tiff_lzw", "jpeg", "tiff_adobe_deflate"):  # tifffile leaves two of them to Pillow
        found |= _written(
            root, "tiff", f"{method}.tif", lambda path, m=method: Image.fromarray(byte[0]).save(path, compression=m)
        )
    return found


def _hdf5s(root: Path) -> _Files:
    import h5py

    images = counts(6, SIDE)
    levels, labels = np.linspace(0, 60, 6), np.arange(6)

    def nested(path: Path) -> None:
        with h5py.File(path, "w") as store:
            store["scan/raw"] = images
            store["scan/sigma"] = levels
            store["scan/again"] = h5py.SoftLink("/scan/raw")
            store["scan/elsewhere"] = h5py.ExternalLink("other.h5", "/x")
            store["notes"] = ["a", "b"]
            store["table"] = np.zeros(3, [("x", "f4"), ("y", "i2", (2,))])
            store["scan"].attrs["unit"] = "counts"
            store["back"] = store["scan"]

    def chunked(path: Path) -> None:
        with h5py.File(path, "w") as store:
            store.create_dataset("images", data=images, chunks=(2, 8, 8), compression="gzip", shuffle=True)
            store.create_dataset("labels", data=labels, maxshape=(None,))
            store.create_dataset("sigma", data=levels, fletcher32=True, chunks=(3,))

    def filtered(path: Path) -> None:
        with h5py.File(path, "w") as store:
            store.create_dataset("data", data=images.astype(np.int32), chunks=(3, 16, 16), scaleoffset=0)
            store.create_dataset("packed", data=images[:, :1, :1], chunks=(3, 1, 1), compression="lzf")

    def elsewhere(path: Path) -> None:
        with h5py.File(path, "w") as store:
            layout = h5py.VirtualLayout((6, SIDE, SIDE), "u2")
            layout[:] = h5py.VirtualSource("other.h5", "raw", (6, SIDE, SIDE))
            store.create_virtual_dataset("images", layout)
            store.create_dataset("x", (2, 4), "u1", external=[("other.bin", 0, 8)])

    def latest(path: Path) -> None:
        with h5py.File(path, "w", libver="latest") as store:
            store.create_dataset("images", data=images, chunks=(1, 16, 16), maxshape=(None, 16, 16))
            store["group/sigma"] = levels

    return {
        **_written(root, "hdf5", "plain.h5", lambda path: hdf5(path, images, sigma=levels, labels=labels)),
        **_written(root, "hdf5", "halves.h5", lambda path: hdf5(path, images.astype(">f2"), "frames")),
        **_written(root, "hdf5", "nested.h5", nested, ":/scan/raw"),
        **_written(root, "hdf5", "chunked.h5", chunked),
        **_written(root, "hdf5", "filtered.h5", filtered, ":/data"),
        **_written(root, "hdf5", "elsewhere.h5", elsewhere, ":/images"),
        **_written(root, "hdf5", "latest.h5", latest),
    }


def _fits(root: Path) -> _Files:
    from astropy.io import fits as format

    images, variance = counts(3, SIDE), np.full((3, SIDE, SIDE), 3600, np.float32)

    def table(path: Path) -> None:
        column = format.Column("x", "3E", array=np.zeros((4, 3), np.float32))
        hdus = [format.PrimaryHDU(), format.BinTableHDU.from_columns([column]), format.ImageHDU(images, name="SCI")]
        format.HDUList([*hdus, format.ImageHDU(variance, name="VAR")]).writeto(path)

    def packed(kind: str) -> Callable[[Path], object]:
        values = images[0] if kind.startswith(("HCOMPRESS", "PLIO")) else images  # these know two axes
        made = format.CompImageHDU(values.astype(np.int16), compression_type=kind, name="SCI")
        return lambda path: format.HDUList([format.PrimaryHDU(), made]).writeto(path)

    made = {
        **_written(root, "fits", "plain.fits", lambda path: fits(path, images)),
        **_written(root, "fits", "floats.fits", lambda path: fits(path, images.astype(np.float32), VAR=variance)),
        **_written(root, "fits", "weights.fit", lambda path: fits(path, images.astype(float), IVAR=1 / variance)),
        **_written(root, "fits", "table.fits", table, ":/SCI"),
    }
    for kind in ("RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1"):
        made |= _written(root, "fits", f"{kind.lower()}.fits", packed(kind))
    return made | _written(root, "fits", "packed.fits.gz", lambda path: gzipped(fits(path.with_suffix(""), images)))


def _niftis(root: Path) -> _Files:
    import nibabel

    images = counts(5, SIDE)

    def scaled(path: Path) -> None:
        volume = nibabel.Nifti1Image(images.astype(np.int16).T, np.eye(4))
        volume.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"a scan"))
        volume.header.set_slope_inter(0.5, 10)
        volume.to_filename(path)

    def second(path: Path) -> None:
        nibabel.Nifti2Image(images.astype(np.float32).T, np.eye(4)).to_filename(path)

    def swapped(path: Path) -> None:
        header = nibabel.Nifti1Header(endianness=">")
        header.set_data_dtype(np.int16)
        nibabel.Nifti1Image(images.reshape(5, 1, SIDE, SIDE).astype(np.int16).T, np.eye(4), header).to_filename(path)

    return {
        **_written(root, "nifti", "plain.nii", lambda path: nifti(path, images)),
        **_written(root, "nifti", "scaled.nii", scaled),
        **_written(root, "nifti", "second.nii", second),
        **_written(root, "nifti", "swapped.nii", swapped),
        **_written(root, "nifti", "packed.nii.gz", lambda path: nifti(path, images)),
    }


def _databases(root: Path) -> _Files:
    import lmdb

    environment = lmdb.open(str(root / "set.mdb"), subdir=False, map_size=2**20)
    with environment.begin(write=True) as transaction:
        for k, image in enumerate((counts(6, SIDE) // 16).astype(np.uint8)):
            held = io.BytesIO()
            Image.fromarray(image).save(held, "PNG")
            transaction.put(f"{k:04d}".encode(), held.getvalue())
    environment.close()
    return {"set.mdb": ("lmdb", "", (root / "set.mdb").read_bytes())}


def _pngs(root: Path) -> _Files:
    import struct
    import zlib

    grey = counts(1, SIDE)[0]
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 0, 0, 0, 0)
    rows = np.zeros((SIDE, 1 + 2 * SIDE), np.uint8)
    rows[:, 0] = np.arange(SIDE) % 5  # every filter
    body = zlib.compress(rows.tobytes())
    parts = chunk(b"IDAT", body[:9]) + chunk(b"IDAT", body[9:])
    filtered = SIGNATURE + chunk(b"IHDR", header) + chunk(b"tEXt", b"Title\0x") + parts + chunk(b"IEND", b"")
    return {
        **_written(root, "png16", "grey.png", lambda path: png16(path, grey)),
        **_written(root, "png16", "colour.png", lambda path: png16(path, counts(3, SIDE).transpose(1, 2, 0))),
        "filtered.png": ("png16", ":range=0..65535", filtered),
    }


def _arrays(root: Path) -> _Files:
    images = counts(5, SIDE)
    levels = np.linspace(0, 60, 5)
    asked = ":range=0..4095"

    def array(path: Path, values: np.ndarray) -> None:
        np.save(path, values)

    return {
        **_written(root, "npz", "plain.npz", lambda path: np.savez(path, images=images, sigma=levels)),
        **_written(root, "npz", "floats.npz", lambda path: np.savez(path, images=images.astype(float)), asked),
        **_written(
            root,
            "npz",
            "packed.npz",
            lambda path: np.savez_compressed(path, images=images, labels=np.array(["a", "b", "c", "a", "b"])),
            ":range=1%..99%",
        ),
        **_written(root, "npy", "plain.npy", lambda path: array(path, images)),
        **_written(root, "npy", "floats.npy", lambda path: array(path, np.asfortranarray(images.astype("f4"))), asked),
    }


def _folders(alone: Mapping[str, bytes]) -> dict[str, Sample]:
    """Folders and zips of files of one type of values, with the levels of `dataset.csv` beside them."""
    each = b"file;noise_std\n# by frame\n" + b"".join(b"a.%s/%04d;%d,5\n" % (b"tif", k, k) for k in range(4))
    kinds = {
        "tif": ("plain.tif", "imagej.tif", "big.tif"),
        "png": ("grey.png", "filtered.png", "grey.png"),
        "fits": ("plain.fits", "plain.fits", "plain.fits"),
        "h5": ("plain.h5", "plain.h5", "plain.h5"),
        "nii.gz": ("packed.nii.gz", "packed.nii.gz", "packed.nii.gz"),
    }
    made: dict[str, Sample] = {}
    for ending, names in kinds.items():
        members = {f"{stem}.{ending}": alone[name] for stem, name in zip("abc", names, strict=True)}
        rows = "".join(f"{name},{level},cat\n" for name, level in zip(members, (60, 0, 30), strict=True))
        members |= {"dataset.csv": f"file,sigma,label\n{rows}".encode()}
        inside = {f"d/{name}": data for name, data in members.items()}
        made[f"folder of {ending}"] = Sample("folder", inside, "d", tuple(n for n in inside if n != "d/dataset.csv"))
        made[f"levels of {ending}"] = Sample("dataset.csv", inside, "d", ("d/dataset.csv",))
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[: 2 if ending == "tif" else 1]:
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", method) as archive:
                for name, data in members.items():
                    archive.writestr(name, data)
            name = f"{ending.replace('.', '-')}{method}.zip"
            made[name] = Sample("zip", {name: buffer.getvalue()}, name, (name,))
    single = {"d/a.tif": alone["plain.tif"], "d/dataset.csv": each}
    return made | {"levels by frame": Sample("dataset.csv", single, "d", ("d/dataset.csv",))}


def _pictures() -> dict[str, Sample]:
    """Folders of pictures of 8 bits, of every kind that Pillow reads here."""
    made = {}
    pixels = rgb(3, SIDE)
    kinds = {"jpg": "JPEG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "png": "PNG", "ppm": "PPM"}
    for ending, kind in kinds.items():
        files = {
            f"d/{k}.{ending}": encode(Image.fromarray(image.transpose(1, 2, 0)), kind) for k, image in enumerate(pixels)
        }
        ways = ("prepared", "skipped") if ending == "gif" else ()  # `data prepare` alone reads palettes
        made[f"folder of {ending}s"] = Sample("pictures", files, "d", tuple(files), ways=ways)
    return made


def _described() -> dict[str, Sample]:
    """EDM's layout, ours with levels, a zip of it, and metadata as JSON lines."""
    files = {f"d/{name}": data for name, data in edm_files(rgb(4, SIDE), [0, 1, 2, 1]).items()}
    names = [name.removeprefix("d/") for name in files if name.endswith(".png")]
    stated = {"labels": None, "sigma": [[name, 0.1 * k] for k, name in enumerate(names)]}
    lines = "".join(json.dumps({"file_name": name, "label": "cat", "sigma": 0.5}) + "\n" for name in names)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.removeprefix("d/"), data)
    images = {name: data for name, data in files.items() if name.endswith(".png")}
    described = {
        "labels of EDM": files,
        "levels": images | {"d/dataset.json": json.dumps(stated).encode()},
        "metadata": images | {"d/metadata.jsonl": lines.encode()},
    }
    made = {
        name: Sample("dataset.json", all_of, "d", tuple(n for n in all_of if not n.endswith(".png")))
        for name, all_of in described.items()
    }
    return made | {"EDM zip": Sample("dataset.json", {"edm.zip": packed.getvalue()}, "edm.zip", ("edm.zip",))}


def _noise_arrays(root: Path) -> dict[str, Sample]:
    """Levels, maps, spectra and labels beside a file of images, and in it."""
    images = rgb(6, 8, channels=1)
    maps = np.random.default_rng(2).uniform(0.1, 0.9, (6, 1, 8, 8)).astype(np.float32)
    spectrum = 1 / (1 + np.abs(np.fft.fftfreq(8, 1 / 8))[:, None] ** 2 + np.arange(5) ** 2)
    levels, labels = np.linspace(0, 0.5, 6), np.arange(6)
    made = {}
    for name, beside in {
        "levels beside": {"sigma": levels, "labels": labels},
        "maps beside": {"sigma": maps},
        "spectrum beside": {"sigma": levels, "spectrum": spectrum},
    }.items():
        files = {"a.npy": _npy(images), **{f"a.{kind}.npy": _npy(array) for kind, array in beside.items()}}
        ways = () if name == "levels beside" else ("read",)  # noise that is not white is not prepared
        made[name] = Sample("noise arrays", files, "a.npy", tuple(n for n in files if n != "a.npy"), ways=ways)
    for name, arrays in {"maps": {"sigma": maps}, "spectrum": {"sigma": levels, "spectrum": spectrum}}.items():
        np.savez(root / "noisy.npz", images=images, **arrays)
        data = (root / "noisy.npz").read_bytes()
        made[f"{name} inside"] = Sample("noise arrays", {"a.npz": data}, "a.npz", ("a.npz",), ways=("read",))
    folder = {f"d/{k}.png": png(image) for k, image in enumerate(images)} | {"d/sigma.npy": _npy(levels)}
    return made | {"levels of a folder": Sample("noise arrays", folder, "d", ("d/sigma.npy",))}


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _idx() -> dict[str, Sample]:
    """MNIST's files: one alone, a folder, packed and not."""
    rng = np.random.default_rng(7)
    plain: dict[str, bytes] = {}
    for part, count in (("train", 9), ("t10k", 4)):
        plain[f"d/{part}-images-idx3-ubyte"] = idx_bytes(rng.integers(0, 256, (count, 8, 8)))
        plain[f"d/{part}-labels-idx1-ubyte"] = idx_bytes(rng.integers(0, 10, count))
    packed = {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in plain.items()}
    alone = "train-images-idx3-ubyte"
    return {
        "idx folder": Sample("idx", plain, "d", tuple(plain)),
        "packed idx folder": Sample("idx", packed, "d", tuple(packed)),
        "idx file": Sample("idx", {alone: plain[f"d/{alone}"]}, alone, (alone,)),
    }


def _cifar(root: Path) -> dict[str, Sample]:
    """CIFAR-10 as pickles and as binary files, in tarballs and unpacked."""
    batches = cifar_batches(1)
    python, binary = cifar_python_files(batches), cifar_binary_files(batches)
    older = cifar_python_files(batches, protocol=0)
    made = {}
    for name, files in (("python", python), ("binary", binary), ("older", older)):
        tar = write_tar(root / f"{name}.tar", files).read_bytes()
        packed = f"cifar-10-{name}.tar.gz"
        made[packed] = Sample("cifar", {packed: gzip.compress(tar, mtime=0)}, packed, (packed,))
        made[f"{name}.tar"] = Sample("cifar", {f"{name}.tar": tar}, f"{name}.tar", (f"{name}.tar",))
    inside = {f"d/{Path(name).name}": data for name, data in python.items()}
    batch = tuple(name for name in inside if "batch" in name)
    return made | {"cifar folder": Sample("cifar", inside, "d", batch)}
