"""How many images of a data set are clean and how many noisy: shares become counts, and what is possible."""

from __future__ import annotations

import math

from ambient_theory.shared.errors import UsageError


def counts(n_images: int, *, keep: float, corruption: float) -> tuple[int, int]:
    """(n_clean, n_noisy) when a share `keep` of the images is used and a share `corruption` of these is noisy.

    Raises UsageError unless 0 < keep <= 1, 0 <= corruption <= 1 and at least one image is kept.
    """
    if not (math.isfinite(keep) and 0 < keep <= 1):
        raise UsageError(f"keep {keep} is not in (0, 1]: give the share of the data set to use")
    if not (math.isfinite(corruption) and 0 <= corruption <= 1):
        raise UsageError(f"corruption {corruption} is not in [0, 1]: give the share of noisy images")
    kept = round(n_images * keep)
    if kept == 0:
        raise UsageError(f"keep {keep} of {n_images} images leaves none")
    noisy = round(kept * corruption)
    return kept - noisy, noisy


def check_counts(n_images: int, already_noisy: int, *, n_clean: int, n_noisy: int, sigma_n: float) -> None:
    """Raise UsageError unless a data set, of which `already_noisy` images came with noise, can give such a mixture."""
    if not (math.isfinite(sigma_n) and sigma_n >= 0):
        raise UsageError(f"sigma {sigma_n} is not a standard deviation: give a finite number >= 0 in units of [-1, 1]")
    if n_clean < 0 or n_noisy < 0 or n_clean + n_noisy == 0:
        raise UsageError(f"{n_clean} clean and {n_noisy} noisy images: both must be >= 0 and one of them > 0")
    pure = n_images - already_noisy
    if n_clean > pure or n_clean + max(n_noisy - already_noisy, 0) > pure:
        extra = f", {already_noisy} of them noisy already" if already_noisy else ""
        raise UsageError(
            f"{n_clean} clean and {n_noisy} noisy images were asked for, but the data set has {n_images}{extra}"
        )
