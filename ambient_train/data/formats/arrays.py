"""What an array may be: images, labels, noise levels, texts (the files that hold them: `ambient_theory.shared.npy`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ambient_theory.shared.errors import DataError, first_line

_LARGEST_LABEL = 2**53
_LAST_CHARACTER = 0x10FFFF


def arranged(array: np.ndarray, where: str) -> np.ndarray:
    """[N, H, W], [N, C, H, W] or [N, H, W, C] as [N, C, H, W]; complex [N, H, W] as [N, 2, H, W], real and imaginary
    part. Raises DataError for other shapes."""
    if array.dtype.kind == "c" and (array.ndim == 3 or (array.ndim == 4 and array.shape[1] == 1)):
        flat = array.reshape(len(array), *array.shape[-2:])
        return np.stack([flat.real, flat.imag], axis=1)
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4 and array.shape[1] in (1, 2, 3):
        return array
    if array.ndim == 4 and array.shape[3] in (1, 3):
        return array.transpose(0, 3, 1, 2)
    raise DataError(
        f"{where}: shape {array.shape} is not a set of images; allowed are [N, H, W], [N, C, H, W] and "
        "[N, H, W, C] with 1 or 3 colours, or 2 channels for real and imaginary part"
    )


TRUTH = ("", "; store False and True as uint8, 0 and 255")
"""What to do about truth values, which are no grey levels."""


def check_finite(images: np.ndarray, where: str) -> None:
    """Raise DataError naming the first images [N, ...] with values that are missing."""
    bad = np.flatnonzero([not np.isfinite(image).all() for image in images])
    if len(bad):
        values = sum(int((~np.isfinite(images[k])).sum()) for k in bad)
        shown = ", ".join(map(str, bad[:4].tolist())) + ", ..." * (len(bad) > 4)
        raise DataError(
            f"{where}: {values:,} values are not finite, in {len(bad):,} images ({shown}): a missing pixel has no "
            "noise level; fill them, or leave such images out"
        )


def as_images(array: np.ndarray, where: str) -> np.ndarray:
    """`arranged` images of uint8, or of floats in units of [-1, 1] (`check_floats` says which are not).

    Raises DataError for other shapes and types, and values that are not finite.
    """
    array = arranged(array, where)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        how = TRUTH[array.dtype.kind == "b"]
        raise DataError(f"{where}: values of type {array.dtype}; images are uint8 (0..255) or floats (-1..1){how}")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, np.float32)
    check_finite(array, where)
    return array


UNEXPLAINED, LOUDEST = 2.0, 16.0
"""How far floats may lie from [-1, 1], beyond what six of their noise levels explain, before it is remarked, and their
root mean square beyond that of the noise before they are refused; and the highest level in units of [-1, 1]."""
FAINTEST = 0.05
"""Floats that all lie nearer to 0 are in other units: six grey levels of 255 are no image."""


def check_floats(images: np.ndarray, sigma: np.ndarray | None, path: Path) -> tuple[str, ...]:
    """A sentence on floats beyond [-1, 1] that no noise level explains, or none.

    images: [N, ...] pixels; sigma: noise level of each image [N], or of each pixel. Raises DataError for numbers that
    cannot be in units of [-1, 1], with the range to give: those that are 0..255 or 0..1, those that all lie within
    `FAINTEST` of 0, and large ones, since the mean square of pixels in [-1, 1] with noise is at most 1 + sigma^2.
    """
    if images.dtype == np.uint8:
        return ()
    low, high = float(images.min()), float(images.max())
    reach = max(-low, high)
    if low >= 0 and high > 16:
        raise DataError(
            f"{path}: floats from {low:g} to {high:g}; floats must be in units of [-1, 1], store 0..255 as uint8; or "
            "say what becomes -1 and 1, with `:range=LOW..HIGH` behind the path"
        )
    if low >= 0 and FAINTEST <= high <= 1:
        raise DataError(
            f"{path}: floats from {low:g} to {high:g} seem to be in [0, 1]; store 2 x - 1, in [-1, 1], or put "
            "`:range=0..1` behind the path"
        )
    faint = 0 < reach < FAINTEST
    levels = np.zeros((len(images), 1)) if sigma is None else sigma.reshape(len(images), -1).astype(np.float64)
    of_each, loudest = levels.max(axis=1), float(levels.max())
    if reach <= 1.001 and loudest <= LOUDEST and not faint:
        return ()
    size = float(np.mean([np.square(image, dtype=np.float64).mean() for image in images]))
    variance = float(np.square(levels).mean())
    if loudest > LOUDEST and size < variance / 2:
        raise DataError(
            f"{path}: noise levels up to {loudest:.4g}, but floats from {low:.4g} to {high:.4g} hold no such noise: "
            f"state levels in units of [-1, 1]; those in grey values of 255 are to be divided by 127.5 ({loudest:.4g} "
            f"is {loudest / 127.5:.3g})"
        )
    if faint or loudest > LOUDEST or size - variance > UNEXPLAINED**2 + 5 * variance * np.sqrt(2 / len(images)):
        least, most = np.percentile(images[of_each == of_each.min()], [0.1, 99.9])
        least, most = (least, most) if least < most else (low, high)
        ends = "..".join(f"{float(f'{v:.3g}'):.15g}" for v in (least, most))
        noise = f" with noise levels up to {loudest:.4g}" * bool(loudest)
        raise DataError(
            f"{path}: floats from {low:.4g} to {high:.4g}{noise} are not in units of [-1, 1]: say which values become "
            f"-1 and 1, as in {path}:range={ends} (0.1 and 99.9 % of the quietest images); noise levels are then in "
            "the units of the file; `:range=-1..1` takes all as they are"
        )
    if sigma is None or not sigma.any():
        return (
            f"floats reach from {low:.4g} to {high:.4g}, but no noise level is stated: pixels are in units of [-1, 1], "
            "and what is noisy needs `sigma`; `:range=LOW..HIGH` behind the path says which values become -1 and 1",
        )
    flat = images.reshape(len(images), -1)
    farthest = np.maximum(flat.max(axis=1), -flat.min(axis=1))
    if float((farthest - 6 * of_each).max()) <= 1 + UNEXPLAINED:
        return ()
    return (
        f"floats reach from {low:.4g} to {high:.4g}, more than noise up to {loudest:.4g} explains: networks are "
        "made for pixels in [-1, 1]; `:range=LOW..HIGH` behind the path says which values become -1 and 1 (noise "
        "levels stay in the units of the file)",
    )


def as_labels(array: np.ndarray, count: int, where: str) -> np.ndarray:
    """Labels int64 [count], from whole numbers or from one-hot rows."""
    if array.ndim == 2 and array.shape[1] > 1 and np.isin(array, (0, 1)).all() and (array.sum(1) == 1).all():
        array = array.argmax(1)
    array = array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array
    if array.shape != (count,):
        raise DataError(f"{where}: labels of shape {array.shape} for {count} images")
    if array.dtype.kind not in "ui" and not (np.isfinite(array).all() and np.equal(array, np.rint(array)).all()):
        raise DataError(f"{where}: labels must be whole numbers")
    if (array < 0).any():
        raise DataError(f"{where}: labels must be >= 0, one is {array.min()}")
    if (array > _LARGEST_LABEL).any():
        raise DataError(f"{where}: labels must be at most {_LARGEST_LABEL:,}, one is {array.max()}")
    return array.astype(np.int64)


def as_sigma(array: np.ndarray, count: int, where: str) -> np.ndarray:
    """Noise levels float32 [count] from one number for all or one an image ([N], [N, 1], [N, 1, 1, 1]).

    Raises DataError for other shapes, maps of the noise of each pixel among them (`noise_arrays` reads those), and
    unless they are finite and >= 0.
    """
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where}: noise levels of type {array.dtype}; give real numbers")
    if array.size == 1:
        array = np.repeat(array.reshape(1), count)
    if array.size == count and array.shape[:1] == (count,):
        array = array.reshape(count)
    if array.ndim > 1 and array.shape[0] == count:
        raise DataError(
            f"{where}: noise levels of shape {array.shape}: maps of the noise of each pixel are read in an .npz, "
            f"beside an .npy or in HDF5 and FITS; here give one level an image, an array of {count} numbers"
        )
    if array.shape != (count,):
        raise DataError(f"{where}: noise levels of shape {array.shape} for {count} images")
    with np.errstate(over="ignore"):
        sigma = array.astype(np.float32)
    if not (np.isfinite(sigma).all() and (sigma >= 0).all()):
        raise DataError(f"{where}: noise levels must be finite and >= 0")
    return sigma


def as_texts(array: np.ndarray, where: str) -> list[str]:
    """Text of an array of text, flattened. Raises DataError for what is no text in UTF-8 or no character."""
    flat = np.ascontiguousarray(array).reshape(-1)
    codes = flat.view(np.dtype("u4").newbyteorder(flat.dtype.byteorder)) if flat.dtype.kind == "U" else np.zeros(1)
    try:
        if codes.max(initial=0) > _LAST_CHARACTER:
            raise ValueError("a number beyond the last character")
        texts = [value.decode() if isinstance(value, bytes) else str(value) for value in flat.tolist()]
        "".join(texts).encode()  # lone surrogates are no characters either
    except (ValueError, UnicodeError) as error:
        raise DataError(f"{where}: not text ({first_line(error)})") from None
    return texts
