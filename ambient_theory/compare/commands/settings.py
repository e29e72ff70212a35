"""What `compare`, `price` and `budget` can be asked: each option once, for the flags, their help and the docs.

Nothing heavy is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import Checked, check_at_default, option

_SCORES, _PAGE, _NOISE, _MONEY = "Which scores", "Page", "Noise", "Prices and budget"
_FROM = "From one denoiser"
_MEASURED = ("data", "resolution", "images")


@dataclass(frozen=True, kw_only=True)
class Scores(Checked):
    """Which of the records are used, and how sure their intervals are."""

    metric: str | None = option(
        None, "Only scores of this metric: fd, kid, fid, or denoise", shown_default="all", panel=_SCORES
    )
    extractor: str | None = option(
        None, "Only scores of this feature extractor, NAME or NAME:HASH", shown_default="all", panel=_SCORES
    )
    confidence: float = option(0.95, "Confidence of intervals", at_least=0.5, below=1, panel=_SCORES)


@dataclass(frozen=True, kw_only=True)
class PageOptions(Checked):
    """Where the page goes and what it shows beside the records."""

    outdir: Path = option(Path("report"), "Where to write index.html, table.csv, fit.json, figures/", panel=_PAGE)
    gallery: tuple[Path, ...] = option(
        (), "PNG of samples to show, or a directory of them, captioned by name; repeat", panel=_PAGE
    )
    shipped: bool = option(False, "Add the records that ship with ambient to RECORDS", panel=_PAGE)


@dataclass(frozen=True, kw_only=True)
class PriceOptions(Checked):
    """At which noise a price is asked, and of what."""

    sigma_n: float | None = option(
        None,
        "Noise level of the noisy images (standard deviation, pixels in [-1, 1])",
        key="sigma",
        at_least=0,
        shown_default="none, must be given",
        panel=_NOISE,
    )
    source: str | None = option(
        None,
        "Predict the price from one denoiser, nothing fitted: a run or records of one, or, measured on --data, an "
        "exported network, an EDM .pkl or hf:NAME. RECORDS are then what the formula is tested on",
        flag="--from",
        shown_default="the price is read from RECORDS",
        panel=_FROM,
    )
    data: str | None = option(
        None,
        "Data set of --from, a name or a path; its held-out clean images are denoised",
        shown_default="that of the run",
        panel=_FROM,
    )
    resolution: int | None = option(
        None, "Area-resize --data to this side", at_least=2, shown_default="that of the network", panel=_FROM
    )
    images: int = option(
        1000, "At most so many held-out images are denoised", at_least=2, flag="--n-denoise", panel=_FROM
    )

    def noise(self) -> float:
        """The noise level. Raises UsageError if none was given."""
        if self.sigma_n is None:
            raise UsageError("--sigma is missing: give the noise level of the noisy images, for example --sigma 0.2")
        return self.sigma_n

    def check_no_source(self) -> None:
        """Raise UsageError where something is said of a denoiser and none is named."""
        check_at_default(self, _MEASURED, "says on what --from is measured: give --from NETWORK too")

    def check_of_records(self) -> None:
        """Raise UsageError where something is said of a measurement, and records have theirs."""
        check_at_default(
            self, _MEASURED, f"says how a network is measured, and {self.source} holds records: leave it out"
        )


@dataclass(frozen=True, kw_only=True)
class Purse(Checked):
    """What images cost, and what may be spent or must be reached."""

    price_clean: float | None = option(
        None,
        "Cost of one clean image (any currency)",
        above=0,
        shown_default="none, must be given",
        panel=_MONEY,
    )
    price_noisy: float | None = option(
        None, "Cost of one noisy image (same currency)", above=0, shown_default="none, must be given", panel=_MONEY
    )
    budget: float | None = option(None, "What may be spent (same currency)", above=0, panel=_MONEY)
    target_fd: float | None = option(
        None, "Fréchet distance to reach instead: the smallest budget is worked out", above=0, panel=_MONEY
    )
    target_nats: float | None = option(
        None,
        "Held-out denoising error to reach instead, in nats an image (metric nats of the records)",
        above=0,
        panel=_MONEY,
    )
    sigma_n: float | None = option(
        None,
        "Noise level of the images for sale",
        key="sigma",
        at_least=0,
        shown_default="every measured level",
        panel=_NOISE,
    )

    def prices(self) -> tuple[float, float]:
        """(clean, noisy). Raises UsageError unless both were given."""
        if self.price_clean is None or self.price_noisy is None:
            missing = "--price-clean" if self.price_clean is None else "--price-noisy"
            raise UsageError(f"{missing} is missing: give what one image of each kind costs, in any currency")
        return self.price_clean, self.price_noisy
