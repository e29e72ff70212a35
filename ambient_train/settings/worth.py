"""What `ambient worth` is asked: noise levels, how long, at which size, and prices for a purchase."""

from __future__ import annotations

from dataclasses import dataclass

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import Checked, option
from ambient_train.data.noise_models import help_for_added, kind_of

_PANEL, _MACHINE = "Question", "Machine and processes"
SIDES = (8, 16)
"""Sides in pixels at which small networks answer in minutes."""


@dataclass(frozen=True, kw_only=True)
class WorthOptions(Checked):
    """Raises UsageError where there is no noise level, or half a pair of prices."""

    sigmas: tuple[float, ...] = option(
        (),
        "Noise of the noisy images, in units of [-1, 1], at the size that the images have; several times",
        key="sigma",
        panel=_PANEL,
    )
    noise: str = option(
        "",
        f"Kind of the noise of the noisy images: {help_for_added()}",
        shown_default="that of the images that came noisy, else white",
        panel=_PANEL,
    )
    time_s: float = option(
        3600.0,
        "How long it may take: 3m, 1h, 8h; what was spent before counts",
        above=0,
        form="time",
        flag="--time",
        shown_default="1h",
        panel=_PANEL,
    )
    resolutions: tuple[int, ...] = option(
        (),
        f"Side in pixels that larger images are area-resized to: {' or '.join(map(str, SIDES))}; the noise is that of "
        "noisy images resized likewise",
        flag="--resolution",
        key="resolution",
        shown_default=f"as is up to {SIDES[-1]} pixels, else {SIDES[0]}",
        panel=_PANEL,
    )
    price_clean: float | None = option(
        None, "What a clean image costs, in any currency: also say what to buy", above=0, panel=_PANEL
    )
    price_noisy: float | None = option(None, "What a noisy image costs, in the same currency", above=0, panel=_PANEL)
    budget: float | None = option(
        None,
        "With prices: what may be spent, in the same currency",
        above=0,
        shown_default="what the largest mixture that was measured costs",
        panel=_PANEL,
    )
    workers: int = option(1, "Trainings at a time, one process each", at_least=1, panel=_MACHINE)
    device: str = option("auto", "auto, cpu or cuda", panel=_MACHINE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sigmas:
            raise UsageError("--sigma is missing: give the noise of the noisy images, in units of [-1, 1]")
        if self.noise:
            kind_of(self.noise)
        for sigma in self.sigmas:
            if not 0 < sigma < 80:
                raise UsageError(f"--sigma {sigma:g} is no noise to price: give a level above 0 and below 80")
        if len(set(self.sigmas)) < len(self.sigmas):
            raise UsageError("--sigma is given twice with the same level: leave one out")
        if len(self.resolutions) > 1:
            raise UsageError("one --resolution a command: ask again with the other one, and compare the two answers")
        if any(side not in SIDES for side in self.resolutions):
            raise UsageError(f"--resolution {self.resolutions[0]} is not {' or '.join(map(str, SIDES))}")
        if (self.price_clean is None) != (self.price_noisy is None):
            raise UsageError("--price-clean and --price-noisy belong together: give both, or neither")
        if self.budget is not None and self.price_clean is None:
            raise UsageError("--budget says what may be spent on images: give --price-clean and --price-noisy too")

    @property
    def resolution(self) -> int | None:
        """The side asked for, or None."""
        return self.resolutions[0] if self.resolutions else None
