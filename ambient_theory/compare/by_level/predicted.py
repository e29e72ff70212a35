"""The price of a noisy image predicted from one denoiser, before any mixture is trained.

The formula of `compare.by_level.formula` needs one thing of the data: V(s), the error of a denoiser trained on clean
images. With it the worth of a noisy image at level s is V/(V + v), v = sigma_n^2 s^2/(s^2 - sigma_n^2), and 0 at
s <= sigma_n. Nothing is fitted.

One number of it is a mean over the levels, in which each level counts by the excess nats that one more clean image
takes away there, `-dE/dn s^-3 ds` (s^-3 is the weight of the likelihood bound, Song et al. 2021). Two models of
different clean sizes give `-dE/dn` by their difference; one model alone gives it only up to the assumption that an
image takes the same share of the error away at every level, `V s^-3 ds`. Quadrature: the trapezoidal rule over ln s on
a fine grid, V interpolated between the measured levels.

V(s) is the error of a model and so at least the best denoiser's, which makes the predicted worth an upper end. How much
that is shows in a second model of fewer clean images, whose V is inflated more.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ambient_theory.compare.by_level.formula import predicted_worth
from ambient_theory.compare.by_level.levels import (
    DENOISE,
    LevelCell,
    LevelTable,
    has_levels,
    level_tables,
    nats_quadrature,
)
from ambient_theory.compare.by_level.words import worth_text
from ambient_theory.compare.cells.grouping import level_of, method_words, without_noise
from ambient_theory.compare.fitting.fits import Interval
from ambient_theory.compare.scores.words import number, span
from ambient_theory.shared.eigenvalues import WHITE, Eigenvalues
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.reading import METRICS_LOG
from ambient_theory.shared.records import HELDOUT_BEST, Record

Floats = NDArray[np.float64]
SCHEMA = "ambient.predicted-price/1"
MEASURED = "ambient.denoising/1"
"""Schema of a denoising error that was measured on the spot."""
FINE = 400
"""Levels of the grid on which means over levels are taken."""
BY_NATS = "excess nats between the models of {} and {} clean images"
BY_ERROR = "the nats that its error carries, as if one more image took the same share of it away at every level"


@dataclass(frozen=True, eq=False)
class Denoiser:
    """E(s) of one model on held-out clean images, per pixel.

    levels, error, half [L]: half the interval's width in log E. n_clean: None where it is not known (a foreign
    network). how: condition in words.
    """

    dataset: str
    levels: Floats
    error: Floats
    half: Floats
    n_clean: int | None
    n_noisy: int
    how: str

    @property
    def name(self) -> str:
        if self.n_clean is None:
            return "the network"
        beside = f" beside {self.n_noisy:,} noisy ones" if self.n_noisy else ""
        return f"the model of {self.n_clean:,} clean images{beside}"


@dataclass(frozen=True, eq=False)
class PredictedPrice:
    """The prediction at noise sigma_n.

    worth [L]: by level, with the interval of V. second: the same with V of the second largest clean-only model, None
    without one. everywhere: the one number over all levels measured; above: over those above the noise; weight: what
    the levels are weighed by, in words; shares [L]: the weights, sum 1.
    """

    denoiser: Denoiser
    second: Denoiser | None
    sigma_n: float
    confidence: float
    worth: tuple[Interval, ...]
    second_worth: Floats | None
    everywhere: Interval
    above: Interval
    second_everywhere: float | None
    second_above: float | None
    weight: str
    shares: Floats

    def sentences(self) -> list[str]:
        """The prediction, what V rests on, and what it leaves out."""
        d, c = self.denoiser, f"{100 * self.confidence:g} %"
        low, high = d.levels[0], d.levels[-1]
        out = [
            f"{d.dataset}, white noise of σ {self.sigma_n:g}, predicted from one denoiser: above the noise level one "
            f"clean image is worth {_price(self.above)} noisy ones, and over all levels, in nats, "
            f"{_price(self.everywhere)} ({c} intervals of V alone; nothing fitted).",
            f"V(s) is the error of {d.name} ({d.how}) at {len(d.levels)} levels from {low:.3g} to {high:.3g}; each "
            f"level counts by {self.weight}.",
        ]
        bound = "V holds the model's own error, so the worth is at most this and the price at least"
        if self.second is None:
            out.append(f"{bound}; a second clean size would show by how much.")
        else:
            assert self.second_above is not None
            assert self.second_everywhere is not None
            out.append(
                f"{bound}: with V of {self.second.name} it is {number(_inverse(self.second_above))} above the noise "
                f"level and {number(_inverse(self.second_everywhere))} over all levels."
            )
        out.append(
            "To which levels a Fréchet distance is sensitive is not measured here, so no price in FD is predicted."
        )
        return out

    def rows(self) -> list[list[str]]:
        """A line a level: V, worth with interval, the second model's, share of the weight."""
        out = []
        for k, level in enumerate(self.denoiser.levels):
            second = "–" if self.second_worth is None else number(float(self.second_worth[k]), 2)
            side = "above σ" if level > self.sigma_n else "below σ"
            worth = worth_text(self.worth[k]) if self.worth[k].value > 0 else "0"
            error, share = number(float(self.denoiser.error[k])), f"{self.shares[k]:.0%}"
            out.append([f"{level:.3g}", side, error, worth, second, share])
        return out

    columns = ("level s", "", "V(s)", "worth V/(V + v)", "with V of the second", "weight")

    def to_dict(self) -> dict[str, Any]:
        d, second = self.denoiser, self.second
        return {
            "schema": SCHEMA,
            "dataset": d.dataset,
            "sigma_n": self.sigma_n,
            "confidence": self.confidence,
            "V_of": {"n_clean": d.n_clean, "n_noisy": d.n_noisy, "how": d.how},
            "levels": d.levels.tolist(),
            "V": d.error.tolist(),
            "worth": [i.to_list() for i in self.worth],
            "V_second_of": None if second is None else {"n_clean": second.n_clean, "how": second.how},
            "worth_with_V_second": None if self.second_worth is None else self.second_worth.tolist(),
            "weight": self.weight,
            "weights": self.shares.tolist(),
            "worth_over_all_levels": self.everywhere.to_list(),
            "worth_above_the_noise": self.above.to_list(),
            "price_over_all_levels": self.everywhere.inverse().to_list(),
            "price_above_the_noise": self.above.inverse().to_list(),
            "worth_over_all_levels_with_V_second": self.second_everywhere,
            "worth_above_the_noise_with_V_second": self.second_above,
            "sentences": self.sentences(),
        }


def _price(worth: Interval) -> str:
    return span(worth.inverse())


def _inverse(worth: float) -> float:
    return 1 / worth if worth > 0 else math.inf


def predict_price(
    denoiser: Denoiser, sigma_n: float, *, second: Denoiser | None = None, confidence: float = 0.95
) -> PredictedPrice:
    """Worth by level and as one number. second: a clean-only model of fewer images at the same levels.

    Raises DataError where no level above the noise was measured, so that V is not known where it is needed.
    """
    levels = denoiser.levels
    over = levels > sigma_n
    if not over.any():
        raise DataError(
            f"{denoiser.dataset}: the error was measured at levels up to {levels[-1]:.3g} only, and a noisy image of σ "
            f"{sigma_n:g} counts above its noise alone: measure up to a higher level"
        )
    if second is not None and (len(second.levels) != len(levels) or not np.allclose(second.levels, levels)):
        second = None
    more = None if second is None else np.maximum(second.error, denoiser.error)
    gain = denoiser.error if more is None else more - denoiser.error
    weight = BY_ERROR
    if second is not None and more is not None and gain[over].sum() > 0:
        weight = BY_NATS.format(f"{second.n_clean:,}", f"{denoiser.n_clean:,}")
    else:
        gain = denoiser.error
    shares = nats_weights(levels, gain)

    def mean(v: Floats, low: float) -> float:
        return mean_worth(levels, v, gain, sigma_n, low)

    vs = [denoiser.error * np.exp(z * denoiser.half) for z in (0.0, -1.0, 1.0)]
    start = max(float(levels[0]), sigma_n)
    of_second = None if more is None else predicted_worth(more, sigma_n, levels)
    return PredictedPrice(
        denoiser=denoiser,
        second=second,
        sigma_n=sigma_n,
        confidence=confidence,
        worth=tuple(
            Interval(float(a), float(b), float(c))
            for a, b, c in zip(*(predicted_worth(v, sigma_n, levels) for v in vs), strict=True)
        ),
        second_worth=of_second,
        everywhere=Interval(*(mean(v, float(levels[0])) for v in vs)),
        above=Interval(*(mean(v, start) for v in vs)),
        second_everywhere=None if more is None else mean(more, float(levels[0])),
        second_above=None if more is None else mean(more, start),
        weight=weight,
        shares=shares,
    )


def nats_weights(levels: Floats, gain: Floats) -> Floats:
    """Shares [L], sum 1, of `gain s^-3 ds` by the trapezoidal rule over ln s. gain [L] >= 0: error taken away."""
    weight = gain * nats_quadrature(levels)
    return np.asarray(weight / weight.sum())


def mean_worth(
    levels: Floats, v: Floats, gain: Floats, sigma_n: float, low: float, noise: Eigenvalues = WHITE
) -> float:
    """Mean of V/(V + v) from level `low` to the highest, weighed by `gain s^-3 ds`.

    V is interpolated between the levels, log-log, and the gain over ln s, so that the mean does not jump where the
    noise passes a measured level. 0 where the highest level is not above `low`.
    """
    if not low < levels[-1]:
        return 0.0
    grid = np.geomspace(low, levels[-1], FINE)
    x, at = np.log(levels), np.log(grid)
    weight = np.interp(at, x, gain) * nats_quadrature(grid)
    worth = predicted_worth(np.exp(np.interp(at, x, np.log(v))), sigma_n, grid, noise=noise)
    return float(weight @ worth / weight.sum()) if weight.sum() > 0 else 0.0


# ------------------------------------------------------------------------------------------------------ where V is from


def holds_records(source: str | os.PathLike[str]) -> bool:
    """Whether a place holds records of trainings: a `.jsonl` file, a finished run, or a directory with either."""
    path = Path(source)
    if path.is_file():
        return path.suffix == ".jsonl" or path.name == "result.json"
    files = (p for pattern in ("*.jsonl", "result.json") for p in path.rglob(pattern))
    return any(p.name != METRICS_LOG for p in files)


def denoisers(records: Iterable[Record], confidence: float = 0.95) -> tuple[Denoiser, Denoiser | None]:
    """(the model whose error is V, a second clean-only one or None) of the records of one data set.

    The condition with most clean-only sizes is taken, the held-out best checkpoint before the last one, then the
    longest training. A mixture serves only where no clean-only model is there. Raises DataError where V is not known.
    """
    rows = [r for r in records if r.source == "train"]
    if not has_levels(rows):
        raise DataError(
            "no held-out denoising error is among these records, so V is not known: a run has it if clean images were "
            "held out; `ambient evaluate RUN --outdir X` measures it, then take X"
        )
    tables = level_tables(rows, level_best=False)
    datasets = sorted({t.key.dataset for t in tables})
    if len(datasets) > 1:
        raise DataError(f"these records hold models of {', '.join(datasets)}: one denoiser has one V; name one run")
    known = [t for t in tables if any(c.n_clean for c in t.cells)]
    if not known:
        raise DataError(
            f"{datasets[0]}: every model was trained on noisy images alone and knows nothing below its noise, so its "
            "error is not V: take a run with clean images"
        )
    best = max(
        known,
        key=lambda t: (not t.key.told, len(t.clean), t.key.checkpoint == HELDOUT_BEST, t.key.duration_nimg, t.n_seeds),
    )
    cells = best.clean or tuple(sorted((c for c in best.cells if c.n_clean), key=lambda c: (c.n_clean, c.n_noisy)))
    second = _of_cell(best, best.clean[-2], rows, confidence) if len(best.clean) > 1 else None
    return _of_cell(best, cells[-1], rows, confidence), second


def _of_cell(table: LevelTable, cell: LevelCell, rows: Sequence[Record], confidence: float) -> Denoiser:
    """One cell as a denoiser. The interval holds the scatter over seeds and the standard error over images, which all
    seeds share."""
    key = table.key
    own = [
        r
        for r in rows
        if r.metric == DENOISE
        and (r.n_clean, r.n_noisy, r.dataset) == (cell.n_clean, cell.n_noisy, key.dataset)
        and (not cell.n_noisy or without_noise(r.method)[1:] == (key.told, key.noise))
        and (r.duration_nimg or 0, r.checkpoint or "", method_words(without_noise(r.method)[0]))
        == (key.duration_nimg, key.checkpoint, key.method)
    ]
    relative: list[float] = []
    for level in table.levels:
        found = [r.stderr / r.value for r in own if r.stderr is not None and r.level and level_of(r.level) == level]
        relative.append(float(np.mean(found)) if found else 0.0)
    images = float(special.ndtri(0.5 + confidence / 2)) * np.array(relative)
    seeds = np.zeros(len(table.levels))
    if table.whole_scatter.dof:
        t = float(special.stdtrit(table.whole_scatter.dof, 0.5 + confidence / 2))
        seeds = t * table.whole_scatter.deviation / math.sqrt(len(cell.seeds))
    how = f"{key.rule}, {key.duration_nimg:,} training images" if key.duration_nimg else key.rule
    how += f", {len(cell.seeds)} seeds" if len(cell.seeds) > 1 else ""
    error = np.exp(cell.log_error.mean(axis=0))
    return Denoiser(key.dataset, table.levels, error, np.hypot(images, seeds), cell.n_clean, cell.n_noisy, how)


def denoiser_of(measured: Mapping[str, Any], confidence: float = 0.95) -> Denoiser:
    """A denoising error that was measured on the spot (`ambient.denoising/1`), with what is known of the network.

    Beside levels, mean, stderr and n: dataset; n_clean, n_noisy (None where the network does not say). Raises
    DataError for a noisy-only network, whose error is not V.
    """
    if measured.get("schema") != MEASURED:
        raise DataError(f"a measured denoising error has schema {MEASURED!r}, not {measured.get('schema')!r}")
    n_clean, n_noisy = measured.get("n_clean"), measured.get("n_noisy") or 0
    if n_clean == 0 and n_noisy:
        raise DataError(
            f"{measured['dataset']}: the network was trained on noisy images alone and knows nothing below its noise, "
            "so its error is not V: take one that saw clean images"
        )
    error = np.array(measured["mean"], dtype=float)
    if not np.all(error > 0):
        raise DataError(f"{measured['dataset']}: the error is 0 at some level, so V is not known there")
    half = float(special.ndtri(0.5 + confidence / 2)) * np.array(measured["stderr"], dtype=float) / error
    how = f"measured on {measured['n']:,} held-out clean images"
    return Denoiser(measured["dataset"], np.array(measured["levels"], dtype=float), error, half, n_clean, n_noisy, how)


Measure = Callable[..., Mapping[str, Any]]
"""measure(network, data=, resolution=, images=, quiet=) -> a denoising error as `denoiser_of` takes it."""
