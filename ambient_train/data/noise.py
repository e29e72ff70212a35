"""What the pixels themselves say of the noise in them, and where it contradicts what is stated.

The finest diagonal Haar coefficients HH = (a - b - c + d)/2 of 2 x 2 blocks hold white noise of standard deviation s
with that same s, and little of a smooth image: s ~ median |HH| / 0.6745 (Donoho & Johnstone 1994). So do those of the
next coarser scale, the HH of (a + b + c + d)/2. Texture of natural images grows towards coarser scales (measured on
photographs and digits: by 1.4 and more from one to the next), white noise does not: that tells one from the other.
"""

from __future__ import annotations

import numpy as np

_MAD_TO_STD = 0.6744897501960817  # upper quartile of the standard normal law
_MAD_ERROR = 1.17  # standard error of the estimate from n normal numbers, relative, times sqrt(n)
_WHITE = 1.25  # coarse / fine below this is noise: white noise has 1, texture 1.4 and more
_VISIBLE = 0.03  # about 4 grey levels of 255
_TOO_LITTLE, _TOO_LITTLE_8_BITS, _TOO_MUCH = 0.95, 0.75, 1.25
_FEW, _GROUPS = 8, 8


def _blocks(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    height, width = pixels.shape[-2] // 2 * 2, pixels.shape[-1] // 2 * 2
    x = pixels[..., :height, :width]
    return x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]


def estimate_noise(pixels: np.ndarray) -> np.ndarray:
    """Noise standard deviation of each image [N, C, H, W], in its own units: a hint, not a measurement.

    White Gaussian noise of standard deviation s gives s; texture adds to it, and flat or clipped regions (a black
    background stored in 8 bits) hide it. Images below 2 x 2 give nan.
    """
    if min(pixels.shape[-2:]) < 2:
        return np.full(len(pixels), np.nan)
    a, b, c, d = _blocks(pixels)
    return np.median(np.abs((a - b - c + d) / 2).reshape(len(pixels), -1), axis=1) / _MAD_TO_STD


def halved(pixels: np.ndarray) -> np.ndarray:
    """(a + b + c + d)/2 of 2 x 2 blocks, [..., H // 2, W // 2]: white noise keeps its standard deviation."""
    a, b, c, d = _blocks(pixels)
    return (a + b + c + d) / 2


def unit_notes(stated: np.ndarray, eight_bits: bool) -> list[str]:
    """A sentence on levels that cannot be in units of [-1, 1], or none."""
    top = float(stated.max(initial=0))
    if not eight_bits or top <= 2:
        return []
    return [
        f"noise levels up to {top:g} cannot be in units of [-1, 1] for images of 8 bits: divide levels in grey values "
        f"by 127.5 ({top:g} is {top / 127.5:.3g})"
    ]


def stated_notes(
    stated: np.ndarray,
    fine: np.ndarray,
    coarse: np.ndarray,
    coefficients: int,
    eight_bits: bool,
    told: tuple[float, str] = (1.0, ""),
) -> list[str]:
    """Sentences where stated and visible noise differ, each with both numbers, times the factor and in the unit `told`.

    stated, fine, coarse: [N], the level of each image, its `estimate_noise`, and that of its `halved` pixels.
    coefficients: how many HH one image has. Less noise than stated (units, correlated or other noise, clipping) is said
    of floats below 0.95 of it and of 8 bits, which clip, below 0.75; more than stated above 1.25 of it, and noise in
    images stated as clean above 0.03, only where it is white and so is no texture.
    """
    keep = np.isfinite(fine) & np.isfinite(coarse)
    stated, fine, coarse = stated[keep], fine[keep], coarse[keep]
    factor, unit = told
    of = f" ({unit})" if unit else ""
    notes = _clean_notes(fine[stated == 0], coarse[stated == 0], factor, of)
    little: list[tuple[float, float]] = []
    much: list[tuple[float, float]] = []
    for index in _by_level(stated):
        level, seen = float(np.median(stated[index])), float(np.median(fine[index]))
        error = 3 * _MAD_ERROR / np.sqrt(len(index) * coefficients)
        ratio = np.median(fine[index] / stated[index])
        if ratio < (_TOO_LITTLE_8_BITS if eight_bits else _TOO_LITTLE) - error:
            little.append((level, seen))
        elif ratio > _TOO_MUCH + error and np.median(coarse[index]) < _WHITE * seen:
            much.append((level, seen))
    for pairs, why in ((little, ", noise that is correlated or not Gaussian, or clipped pixels"), (much, "")):
        if pairs:
            shown = (
                "; ".join(f"{level * factor:.3g} stated, {seen * factor:.3g} seen" for level, seen in pairs[:4]) + of
            )
            more = f"; and {len(pairs) - 4} more" if len(pairs) > 4 else ""
            level, seen = pairs[-1]
            grey = level / 127.5
            hint = f" ({level:.3g} grey levels of 255 are {grey:.3g})" if 0.8 < seen / grey < 1.25 and not unit else ""
            notes.append(f"the pixels show another noise than is stated: {shown}{more}{hint}: other units{why}?")
    return notes


def disagreeing(
    stated: np.ndarray, fine: np.ndarray, coarse: np.ndarray, coefficients: int, eight_bits: bool
) -> np.ndarray:
    """Positions of single images whose pixels contradict the level that is stated for them; columns as `stated_notes`.

    Less than stated: below 0.6 of it (floats) or 0.4 (8 bits), which texture cannot do. More: beyond 1.7 times, white.
    Clean ones: above 0.03 and white. Each beyond four standard errors; images of few pixels tell nothing.
    """
    error = 4 * _MAD_ERROR / np.sqrt(coefficients)
    if error > 0.5:
        return np.empty(0, np.intp)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = fine / stated
        white = coarse < _WHITE * fine
        less = (stated > 0) & (ratio < (0.4 if eight_bits else 0.6) * (1 - error))
        more = (stated > 0) & (ratio > 1.7 * (1 + error)) & white
        dirty = (stated == 0) & (fine > _VISIBLE * (1 + error)) & white
    return np.flatnonzero(less | more | dirty)


def _by_level(stated: np.ndarray) -> list[np.ndarray]:
    """Positions of the noisy images by level; neighbouring levels together where there are many."""
    noisy = np.flatnonzero(stated > 0)
    order = noisy[np.argsort(stated[noisy], kind="stable")]
    starts = np.flatnonzero(np.diff(stated[order])) + 1
    if len(starts) + 1 <= _GROUPS:
        return [part for part in np.split(order, starts) if len(part)]
    return [part for part in np.array_split(order, _GROUPS) if len(part)]


def _clean_notes(fine: np.ndarray, coarse: np.ndarray, factor: float, unit: str) -> list[str]:
    if len(fine) < _FEW:
        return []
    roughest = np.argsort(fine, kind="stable")[-(len(fine) // 4) :]
    for who, index in (("most", np.arange(len(fine))), ("a quarter or more", roughest)):
        seen = float(np.median(fine[index]))
        if seen > _VISIBLE and np.median(coarse[index]) < _WHITE * seen:
            return [
                f"{len(fine):,} images count as clean (noise 0), but {who} of them show white noise of about "
                f"{seen * factor:.3g}{unit}: state their level, in a dataset.csv (columns file, sigma) or an array "
                "`sigma`"
            ]
    return []
