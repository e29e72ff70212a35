"""From samples to a fit with everything that is said of it: the number of atoms, intervals, checks, posterior means.

Every number comes from the public estimator, `HeteroscedasticMixture`, and the functions beside it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ambient_theory.mixtures.estimators import HeteroscedasticMixture
from ambient_theory.mixtures.inference import (
    Candidate,
    Kind,
    Test,
    Uncertainty,
    check_draws,
    goodness_of_fit,
    likelihood_ratio_test,
    number_of_components,
)
from ambient_theory.mixtures.noise_scale import NoiseProfile, NoiseScale, noise_profile, noise_scale
from ambient_theory.own_data.options import CHECKED_UP_TO, FitConfig
from ambient_theory.own_data.samples import OwnSamples
from ambient_theory.shared.errors import UsageError

Floats = NDArray[np.float64]
Stage = Callable[[str], None]
CLOSE_BIC = 2.0
"""Differences of BIC below this decide nothing."""


@dataclass(frozen=True)
class Posterior:
    """Of each sample: mean (n, d) and deviation (n, d) of Y given X, and the probability (n, k) of each atom."""

    mean: Floats
    deviation: Floats
    atoms: Floats


@dataclass(frozen=True)
class Fit:
    """samples, with the noise that was used in the end; model: fitted; bic: None for npmle; intervals: None where none
    were asked for or there are none. candidates: what BIC chose among; ratios: tests of k against k + 1 atoms. scale:
    of the noise, and whether it is the one that was used; goodness: of the fit. notes: sentences to heed."""

    config: FitConfig
    samples: OwnSamples
    model: HeteroscedasticMixture
    bic: float | None
    intervals: Uncertainty | None
    candidates: tuple[Candidate, ...]
    ratios: dict[int, Test]
    scale: NoiseScale | None
    rescaled: bool
    goodness: Test | None
    posterior: Posterior
    notes: tuple[str, ...]

    @property
    def log_likelihood(self) -> float:
        """Of all samples together."""
        return self.model.total_log_likelihood(self.samples.x, noise_std=self.samples.noise_std)


def fit_samples(samples: OwnSamples, config: FitConfig, stage: Stage = lambda what: None) -> Fit:
    """Fit as the options say. stage: told what is being done, before it is. Raises UsageError and DataError."""
    check_fit(samples, config)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        candidates, ratios, profiles = _numbers_of_atoms(samples, config, stage)
        best = min(candidates, key=lambda c: c.bic).k if candidates else 1  # of all laws: whatever number results
        k = config.k or (_by_ratio(ratios, config) if config.ratio_test else best)
        found = None if k not in profiles else profiles[k].scale
        if found is not None and samples.x.shape[1] == 1 and config.intervals in ("auto", "likelihood"):
            stage("intervals, with the noise as unknown as the atoms")
            found = profiles[k].with_intervals()
        if found is not None:
            samples = samples.with_noise(found.scale, found.known)
        stage("fitting")
        model = _model(config, k).fit(samples.x, noise_std=samples.noise_std)
        fit = _checked(samples, config, model, candidates, ratios, found, stage)
    heard = [str(w.message) for w in caught if w.category is UserWarning]
    said = [message for message in dict.fromkeys(heard) if f"k = {k}:" in message or "k = " not in message]
    return replace(fit, notes=(*fit.notes, *said))


def check_fit(samples: OwnSamples, config: FitConfig) -> None:
    """Raises UsageError where these samples cannot be fitted like that."""
    n, d = samples.x.shape
    estimated = samples.s is None or config.rescale_noise
    if config.method == "npmle" and d > 1:
        raise UsageError(f"--method npmle works on the line, and the samples have {d} dimensions: choose another")
    if config.intervals in ("likelihood", "fisher") and d > 1:
        raise UsageError(
            f"--intervals {config.intervals} is for the line, and the samples have {d} dimensions: take bootstrap"
        )
    if config.intervals == "likelihood" and config.method == "dmm" and config.k != 1 and not estimated:
        raise UsageError("--intervals likelihood is for a fit by likelihood, not for --method dmm: take bootstrap")
    by_default = d > 1 or (config.method == "dmm" and not estimated)
    if config.intervals == "bootstrap" or (config.intervals == "auto" and by_default):
        check_draws(config.boot, config.level)
    if config.k is not None and n < config.k:
        raise UsageError(f"{n} samples for --k {config.k}: fewer atoms, or more samples")


def _model(config: FitConfig, k: int) -> HeteroscedasticMixture:
    return HeteroscedasticMixture(k, method=config.method, radius=config.radius, random_state=config.seed)  # type: ignore[arg-type]


def _numbers_of_atoms(
    samples: OwnSamples, config: FitConfig, stage: Stage
) -> tuple[list[Candidate], dict[int, Test], dict[int, NoiseProfile]]:
    """Every number of atoms that is looked at, the tests of k against k + 1, and the noise where it is estimated. Of
    all laws (npmle) there is none to look at."""
    x, s = samples.x, samples.s
    if config.method == "npmle":
        return [], {}, {}
    asked = [config.k] if config.k is not None else list(range(1, min(config.max_k, len(x)) + 1))
    profiles: dict[int, NoiseProfile] = {}
    if s is None or config.rescale_noise:
        candidates = []
        distinct = len(np.unique(x, axis=0))  # with as many atoms no noise is left to be estimated
        for k in [k for k in asked if config.k is not None or k < max(distinct, 2)]:
            stage(f"the noise, with {_atoms(k)}")
            profiles[k] = noise_profile(_model(config, k), x, s, level=config.level, random_state=config.seed)
            scaled = samples.with_noise(profiles[k].scale.scale, s is not None).noise_std
            (one,) = number_of_components(_model(config, k), x, scaled, [k])
            candidates.append(Candidate(k, one.log_likelihood, one.aic + 2, one.bic + math.log(len(x))))  # and c itself
        return candidates, {}, profiles
    if len(asked) > 1:
        stage(f"how many atoms: 1 to {asked[-1]}")
    candidates = number_of_components(_model(config, 1), x, s, asked)
    ratios: dict[int, Test] = {}
    if config.ratio_test:
        for k in asked:
            stage(f"{_atoms(k)} against {k + 1}: {config.boot} bootstrap samples")
            test = likelihood_ratio_test(_model(config, k), x, s, n_boot=config.boot, random_state=config.seed)
            ratios[k] = test
            if test.p > 1 - config.level:
                break
    return candidates, ratios, profiles


def _atoms(k: int) -> str:
    return f"{k} atom" + ("" if k == 1 else "s")


def _by_ratio(ratios: Mapping[int, Test], config: FitConfig) -> int:
    """The first k that is not rejected, or the largest."""
    return next((k for k, test in ratios.items() if test.p > 1 - config.level), max(ratios))


def _checked(
    samples: OwnSamples,
    config: FitConfig,
    model: HeteroscedasticMixture,
    candidates: Sequence[Candidate],
    ratios: dict[int, Test],
    scale: NoiseScale | None,
    stage: Stage,
) -> Fit:
    """The fit with intervals, checks and posterior, and the sentences that they call for."""
    x, s = samples.x, samples.noise_std
    n, k = len(x), model.n_components
    notes = [*samples.notes, *_notes_on_k(config, k, candidates, ratios)]
    if config.method != "npmle" and (spare := k - _distinct(model, s)):
        what = "lies in the place of another or weighs" if spare == 1 else "lie in the place of another or weigh"
        notes.append(f"{_atoms(spare)} of {k} {what} nothing: the samples support fewer")
    if not model.converged_:
        notes.append(
            f"the fit stopped after {model.n_iter_} iterations short of a maximum: fewer atoms, or another --method"
        )
    few = n <= CHECKED_UP_TO
    estimated = scale is not None
    if scale is None and (config.noise_scale or (config.noise_scale is None and few and config.method != "npmle")):
        stage("is the stated noise right")
        if len(np.unique(x, axis=0)) > k:
            scale = noise_scale(model, x, s, level=config.level, random_state=config.seed)
    if scale is not None and scale.rejected:
        notes.append(_rejected(scale, estimated))
    intervals = None
    if config.intervals != "none" and config.method != "npmle":
        if scale is not None and scale.uncertainty is not None:
            intervals = scale.uncertainty
        else:
            error = scale.relative_error if estimated and scale is not None else 0.0
            carried = math.isfinite(error) and config.intervals in ("auto", "bootstrap")
            intervals = _intervals(model, x, s, config, stage, error if carried else 0.0)
            if estimated and not carried:
                notes.append("the intervals of atoms and weights take the estimated noise as known")
    goodness = None
    if config.goodness or (config.goodness is None and few):
        stage(f"goodness of fit: {config.boot} bootstrap samples")
        goodness = goodness_of_fit(model, x, s, n_boot=config.boot, random_state=config.seed)
        if goodness.p < 1 - config.level:
            notes.append(
                f"these atoms with this noise do not fit (p = {goodness.p:.2g}): more atoms, atoms that are no points, "
                "noise of another size or law, or outliers"
            )
    if not few and (config.goodness is None or config.noise_scale is None) and not estimated:
        notes.append(
            f"{n:,} samples: the checks that fit many times are left out beyond {CHECKED_UP_TO:,}; --goodness and "
            "--noise-scale ask for them"
        )
    posterior = Posterior(
        model.predict_mean(x, noise_std=s), model.predict_std(x, noise_std=s), model.predict_proba(x, noise_std=s)
    )
    bic = None if config.method == "npmle" else next(c.bic for c in candidates if c.k == k)
    return Fit(
        config, samples, model, bic, intervals, tuple(candidates), ratios, scale, estimated, goodness, posterior,
        tuple(notes),
    )  # fmt: skip


def _intervals(
    model: HeteroscedasticMixture, x: Floats, s: Floats, config: FitConfig, stage: Stage, noise_error: float
) -> Uncertainty:
    stage("intervals")
    kind = cast(Kind, None if config.intervals == "auto" else config.intervals)
    ask: dict[str, Any] = {"level": config.level, "n_boot": config.boot, "random_state": config.seed}
    return model.intervals(x, noise_std=s, kind=kind, noise_error=noise_error, **ask)


def _distinct(model: HeteroscedasticMixture, s: Floats) -> int:
    """Atoms that weigh something and lie apart, by a thousandth of the smallest noise."""
    kept: list[Floats] = []
    for atom, weight in zip(model.means_, model.weights_, strict=True):
        if weight > 1e-9 and all(np.linalg.norm(atom - other) > 1e-3 * s.min() for other in kept):
            kept.append(atom)
    return len(kept)


def _rejected(scale: NoiseScale, used: bool) -> str:
    words = (
        f"the stated noise is rejected at {100 * scale.level:g} %: the samples ask for {scale.scale:.4g} of it "
        f"({scale.low:.4g} to {scale.high:.4g}), if these atoms are the law"
    )
    return words + ("; that is used" if used else "; --rescale-noise fits with that, more atoms may explain it, too")


def _notes_on_k(config: FitConfig, k: int, candidates: Sequence[Candidate], ratios: Mapping[int, Test]) -> list[str]:
    notes = []
    if config.k is None and config.method != "npmle":
        ordered = sorted(candidates, key=lambda c: c.bic)
        if len(ordered) > 1 and k == ordered[0].k and ordered[1].bic - ordered[0].bic < CLOSE_BIC:
            notes.append(
                f"BIC hardly tells {ordered[0].k} atoms from {ordered[1].k} (a difference of "
                f"{ordered[1].bic - ordered[0].bic:.1f}): --ratio-test asks more closely"
            )
        if k == config.max_k and k > 1:
            notes.append(f"{k} is the largest number of atoms that was tried: raise --max-k")
    test = ratios.get(k)
    if test is not None and test.p <= 1 - config.level:
        notes.append(f"{_atoms(k)} are rejected against {k + 1} (p = {test.p:.2g}): give more")
    return notes
