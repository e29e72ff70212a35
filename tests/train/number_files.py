"""Small files of numbers, of every format, for tests; each function writes images [N, H, W] or [N, H, W, 3]."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from PIL import Image

from ambient_train.data.formats.png16 import encode_png16


def counts(n: int = 12, side: int = 16, seed: int = 0, level: float = 60) -> np.ndarray:
    """12-bit camera counts uint16 [n, side, side]: one blurred cell an image, noise of `level` counts."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    at = rng.uniform(side / 4, 3 * side / 4, (n, 2, 1, 1))
    cells = 300 + 2200 * np.exp(-((y - at[:, 0]) ** 2 + (x - at[:, 1]) ** 2) / (0.04 * side**2))
    return np.clip(np.rint(rng.normal(cells, level)), 0, 4095).astype(np.uint16)


def tiff(path: Path, images: np.ndarray, **options: object) -> Path:
    import tifffile

    tifffile.imwrite(path, images, photometric="rgb" if images.shape[-1] == 3 else "minisblack", **options)
    return path


def hdf5(path: Path, images: np.ndarray, name: str = "images", **others: np.ndarray) -> Path:
    import h5py

    with h5py.File(path, "w") as store:
        store[name] = images
        for other, array in others.items():
            store[other] = array
    return path


def fits(path: Path, images: np.ndarray, **extensions: np.ndarray) -> Path:
    from astropy.io import fits as format

    hdus = [format.PrimaryHDU(images)]
    hdus[0].header["OBJECT"] = "a field"
    hdus += [format.ImageHDU(array, name=name) for name, array in extensions.items()]
    format.HDUList(hdus).writeto(path, overwrite=True)
    return path


def nifti(path: Path, images: np.ndarray) -> Path:
    import nibabel

    volume = nibabel.Nifti1Image(images.transpose(2, 1, 0), np.diag([2.0, 2.0, 3.0, 1.0]), dtype=images.dtype)
    volume.to_filename(path)
    return path


def png16(path: Path, image: np.ndarray) -> Path:
    path.write_bytes(encode_png16(image[None] if image.ndim == 2 else image.transpose(2, 0, 1)))
    return path


def pillow_png16(path: Path, image: np.ndarray) -> Path:
    Image.fromarray(image).save(path)
    return path


STACKS = {
    "stack.tif": tiff,
    "stack.h5": hdf5,
    "stack.fits": fits,
    "stack.nii": nifti,
    "stack.nii.gz": nifti,
}
"""One file of several images, by the name that its reader knows it by."""


def gzipped(path: Path) -> Path:
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    return path.with_name(path.name + ".gz")
