"""How many images are clean and how many noisy, as asked: shares or counts, or what the data came with."""

from __future__ import annotations

from dataclasses import dataclass

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import Checked, option
from ambient_train.data.counts import check_counts, counts

_PANEL = "Data and noise"


@dataclass(frozen=True, kw_only=True)
class Amounts(Checked):
    """Shares of the data set or counts of images, not both. Raises UsageError for a mixture of the two.

    Nothing asked means every image as it came: clean, or with the noise that is stated with the data.
    """

    keep: float | None = option(
        None,
        "Share of the data set that is used, of its clean and of its noisy images alike unless --corruption is given",
        above=0,
        at_most=1,
        shown_default="all of it",
        panel=_PANEL,
    )
    corruption: float | None = option(
        None,
        "Share of the used images that are noisy",
        at_least=0,
        at_most=1,
        shown_default="as the data came",
        panel=_PANEL,
    )
    n_clean: int | None = option(
        None, "Clean images, instead of the shares", at_least=0, shown_default="by the shares", panel=_PANEL
    )
    n_noisy: int | None = option(
        None, "Noisy images, instead of the shares", at_least=0, shown_default="by the shares", panel=_PANEL
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = [name for name in ("keep", "corruption") if getattr(self, name) is not None]
        numbers = [name for name in ("n_clean", "n_noisy") if getattr(self, name) is not None]
        if shares and numbers:
            raise UsageError(f"{numbers[0]} and {shares[0]} exclude each other: give counts or shares")
        if numbers and not (self.n_clean or self.n_noisy):
            raise UsageError("n_clean and n_noisy are both 0: give the number of images to train on")

    @property
    def asked(self) -> bool:
        """Whether anything was asked for."""
        return self != Amounts()

    @property
    def asks_for_noise(self) -> bool:
        """Whether some of the images are asked to be noisy."""
        return bool(self.corruption or self.n_noisy)

    def check_noise(self, sigma_n: float) -> None:
        """Raise UsageError where a noise level is given for no image: half a setting is never dropped."""
        if sigma_n > 0 and not self.asks_for_noise:
            raise UsageError(
                f"sigma {sigma_n:g} adds noise to no image: add --corruption SHARE or --n-noisy COUNT, or leave it out"
            )

    def of(self, n_images: int, already_noisy: int, sigma_n: float) -> tuple[int, int]:
        """(n_clean, n_noisy) of a data set of which `already_noisy` images came with noise.

        Raises UsageError where the set is too small, or where images are to be made noisy and no level is given.
        """
        if not self.asked:
            return n_images - already_noisy, already_noisy
        if self.n_clean is not None or self.n_noisy is not None:
            clean, noisy = self.n_clean or 0, self.n_noisy or 0
        else:
            keep = 1.0 if self.keep is None else self.keep
            as_came = already_noisy / n_images if n_images else 0.0
            share = as_came if self.corruption is None else self.corruption
            clean, noisy = counts(n_images, keep=keep, corruption=share)
            if noisy > already_noisy and self.corruption is None:  # by rounding
                clean, noisy = clean + noisy - already_noisy, already_noisy
        if noisy > already_noisy and not sigma_n > 0:
            came = f", and {already_noisy} came noisy" if already_noisy else ""
            raise UsageError(f"{noisy} noisy images are asked for{came}: add --sigma LEVEL, the noise to add")
        check_counts(n_images, already_noisy, n_clean=clean, n_noisy=noisy, sigma_n=sigma_n)
        return clean, noisy
