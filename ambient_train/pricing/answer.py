"""The answer of `ambient worth`: sentences, bands, purchases, and the same as JSON and as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ambient_theory.shared.advice import Purchase, Worth
from ambient_theory.shared.files import finite
from ambient_theory.shared.frames import frame
from ambient_train.pricing.images import SmallImages
from ambient_train.pricing.stages import Stage


def where_text(sigma: float, scaled: float, small: SmallImages) -> str:
    """Noise as it was asked for, and what its level is at the size of the small images."""
    kind = f"{small.noise.kind} noise of " if small.noise.kind else ""
    at_size = "" if scaled == sigma else f" (σ {scaled:.3g} at {small.resolution} pixels)"
    return f"{kind}σ {sigma:g}{at_size}"


@dataclass(frozen=True, repr=False)
class WorthAnswer:
    """What a noisy image is worth. worths: by noise level as asked, of each checkpoint rule, held-out best first.

    open: noise levels without a price, and why. purchases: by noise level, where prices were given.
    """

    small: SmallImages
    sigmas: Mapping[float, float]
    worths: Mapping[float, Sequence[Worth]]
    open: Mapping[float, str]
    purchases: Mapping[float, Purchase]
    stage: Stage
    trainings: int
    largest: int
    spent_s: float
    page: Path | None
    records: Path
    notes: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        said = "; ".join(self.headline(sigma)[0] for sigma in self.sigmas)
        return f"WorthAnswer({said}; page {None if self.page is None else str(self.page)!r})"

    def to_frame(self) -> Any:
        """Worth by diffusion level as a `pandas.DataFrame`, one row a noise level, rule and diffusion level.

        Raises UsageError without pandas.
        """
        return frame(
            {"sigma": sigma, "rule": worth.rule, **dict(zip(worth.columns, row, strict=True))}
            for sigma, worths in self.worths.items()
            for worth in worths
            for row in worth.rows
        )

    def headline(self, sigma: float) -> list[str]:
        """Price, interval, rule and what it holds for, in sentences."""
        scaled = self.sigmas[sigma]
        where = where_text(sigma, scaled, self.small)
        if sigma in self.open:
            return [f"{self.small.name}, {where}: not determined: {self.open[sigma]}"]
        out = []
        for worth in self.worths[sigma]:
            text = worth.sentence.removeprefix(f"σ {scaled:g}: ")
            out.append(f"{self.small.name}, {where}, {worth.rule}: {text}")
        below = self.worths[sigma][0].below
        if below is not None:
            rule = self.worths[sigma][0].rule
            out.append(f"below the noise level, {rule}, one noisy image is worth in clean ones: {_ends(below)}")
        return out

    def caveat(self) -> str:
        """What the answer was measured on."""
        return (
            f"measured on {self.trainings} small networks, {self.small.resolution}x{self.small.resolution} pixels, "
            f"{self.stage.duration_nimg:,} training images each, at most {self.largest:,} different ones; larger "
            "images, networks and numbers may price otherwise"
        )

    def to_dict(self) -> dict[str, Any]:
        answer = {
            "schema": "ambient.worth/1",
            "dataset": self.small.name,
            "resolution": self.small.resolution,
            "noise": self.small.noise.asked or "white",
            "trainings": self.trainings,
            "duration_nimg": self.stage.duration_nimg,
            "spent_s": round(self.spent_s, 1),
            "noise_levels": [
                {
                    "sigma": sigma,
                    "sigma_at_this_size": scaled,
                    "sentences": self.headline(sigma),
                    "not_determined": self.open.get(sigma),
                    "purchase": self._purchase(sigma),
                    "rules": [
                        {
                            "rule": w.rule,
                            "worth_above": _worth(w.above),
                            "price_above": _price(w.above),
                            "worth_below": _worth(w.below),
                            "columns": list(w.columns),
                            "rows": [list(r) for r in w.rows],
                            **w.details,
                        }
                        for w in self.worths.get(sigma, ())
                    ],
                }
                for sigma, scaled in self.sigmas.items()
            ],
            "caveat": self.caveat(),
            "page": None if self.page is None else str(self.page),
            "records": str(self.records),
            "notes": list(self.notes),
        }
        found: dict[str, Any] = finite(answer)
        return found

    def _purchase(self, sigma: float) -> dict[str, Any] | None:
        found = self.purchases.get(sigma)
        return None if found is None else {**found.details, "sentence": found.sentence}

    def show(self) -> None:
        from ambient_theory.shared.wide_tables import print_table

        for sigma in self.sigmas:
            for sentence in self.headline(sigma):
                print(sentence)
            if sigma in self.purchases:
                print(self.purchases[sigma].sentence)
            for worth in list(self.worths.get(sigma, ()))[:1]:
                print_table(f"By level, σ {sigma:g}, {worth.rule}", worth.columns, worth.rows, keys=1)
        print(self.caveat())
        for note in self.notes:
            print(note)
        if self.page is not None:
            print(f"page: {self.page}")


def _ends(found: tuple[float, float | None, float | None]) -> str:
    value, low, high = found
    if low is None or high is None:
        return f"{value:.2g} (no interval)"
    if high == float("inf"):
        return f"at least {low:.2g}" if low > 0 else "not determined"
    return f"{value:.2g} [{low:.2g}, {high:.2g}]"


def _worth(found: tuple[float, float | None, float | None] | None) -> list[float | None] | None:
    return None if found is None else list(found)


def _price(found: tuple[float, float | None, float | None] | None) -> list[float | None] | None:
    """1/c with its ends."""
    if found is None:
        return None
    value, low, high = found
    invert = lambda c: None if c is None else 1 / c if c > 0 else float("inf")  # noqa: E731
    return [invert(value), invert(high), invert(low)]
