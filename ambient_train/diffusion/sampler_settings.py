"""Settings of the samplers, and which values are allowed. Nothing heavy is imported here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import Checked, by_key, option

SOLVERS = ("heun", "euler")
DISCRETIZATIONS = ("edm", "vp", "ve", "iddpm")
SCHEDULES = ("linear", "vp", "ve")
SCALINGS = ("none", "vp")
VP_BETA_D, VP_BETA_MIN = 19.9, 0.1
"""The published VP process: sigma(t)^2 + 1 = exp(beta_d t^2/2 + beta_min t)."""


BY_RUN = "the run's own, else EDM's"
_PANEL, _ABLATION = "Sampler", "Sampler: choices of EDM's ablation"


@dataclass(frozen=True, kw_only=True)
class Stepping(Checked):
    """What all samplers share: how many steps, and how one is taken (Karras et al. 2022, Algorithms 1 and 2)."""

    steps: int = option(18, "Noise levels above 0", at_least=1, shown_default=BY_RUN, panel=_PANEL)
    solver: str = option(
        "heun", "heun: second order, two evaluations a step; or", choices=SOLVERS, shown_default=BY_RUN, panel=_PANEL
    )
    rho: float = option(
        7.0,
        "Exponent of EDM's levels: larger puts more of them near --sigma-min",
        above=0,
        shown_default=BY_RUN,
        panel=_PANEL,
    )
    churn: float = option(
        0.0, "Noise added and removed again on the way, 0 = none", at_least=0, shown_default=BY_RUN, panel=_PANEL
    )
    s_min: float = option(0.0, "Lowest level with churn", at_least=0, shown_default=BY_RUN, panel=_PANEL)
    s_max: float = option(
        math.inf, "Highest level with churn", at_least=0, finite=False, shown_default=BY_RUN, panel=_PANEL
    )
    s_noise: float = option(
        1.0, "Standard deviation of the churn's unit noise", at_least=0, shown_default=BY_RUN, panel=_PANEL
    )
    stop_sigma: float = option(
        0.0,
        "End at this level with the denoised image there, 0 = go down to 0; for models trained on noisy "
        "images only, whose denoiser is untrained below the data's noise",
        at_least=0,
        shown_default=BY_RUN,
        panel=_PANEL,
    )

    @property
    def bounds(self) -> tuple[float, float]:
        """(sigma_min, sigma_max) that the levels span."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.bounds
        if not 0 < low < high < math.inf:
            raise UsageError(f"sigma-min {low} and sigma-max {high} must satisfy 0 < min < max")
        if self.stop_sigma >= high:
            raise UsageError(
                f"stop-sigma {self.stop_sigma:g} leaves nothing to sample: it must lie below sigma-max {high:g}"
            )


@dataclass(frozen=True, kw_only=True)
class SamplerConfig(Stepping):
    """EDM's sampler. Raises UsageError for values that are not allowed."""

    sigma_min: float = option(0.002, "Lowest noise level above 0", above=0, shown_default=BY_RUN, panel=_PANEL)
    sigma_max: float = option(80.0, "Highest noise level", above=0, shown_default=BY_RUN, panel=_PANEL)

    @property
    def bounds(self) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max


@dataclass(frozen=True, kw_only=True)
class GeneralSamplerConfig(Stepping):
    """Choices of the general sampler (Karras et al. 2022, arXiv 2206.00364, Table 1), freely combined.

    sigma_min, sigma_max: None takes the discretization's published ones. Raises UsageError for values that are not
    allowed.
    """

    steps: int = option(18, "Noise levels above 0", at_least=2, shown_default=BY_RUN, panel=_PANEL)
    discretization: str = option("edm", "Noise levels", choices=DISCRETIZATIONS, panel=_ABLATION)
    schedule: str = option("linear", "sigma(t)", choices=SCHEDULES, panel=_ABLATION)
    scaling: str = option("none", "s(t)", choices=SCALINGS, panel=_ABLATION)
    sigma_min: float | None = option(None, "Lowest noise level above 0", above=0, shown_default=BY_RUN, panel=_PANEL)
    sigma_max: float | None = option(None, "Highest noise level", above=0, shown_default=BY_RUN, panel=_PANEL)
    epsilon_s: float = option(1e-3, "Smallest time of the vp levels", above=0, below=1, panel=_ABLATION)
    c_1: float = option(0.001, "C_1 of the iddpm levels", above=0, below=1, panel=_ABLATION)
    c_2: float = option(0.008, "C_2 of the iddpm levels", above=0, panel=_ABLATION)
    m: int = option(1000, "Number of iddpm levels to choose from", at_least=2, flag="--iddpm-levels", panel=_ABLATION)
    alpha: float = option(
        1.0,
        "Where Heun's second slope is taken: 1 = the end of the step, .5 = its middle",
        above=0,
        at_most=1,
        panel=_ABLATION,
    )

    @property
    def bounds(self) -> tuple[float, float]:
        """(sigma_min, sigma_max), the published ones of the discretization where not given (Table 1)."""
        low, high = {
            "edm": (0.002, 80.0),
            "ve": (0.02, 100.0),
            "iddpm": (0.002, 81.0),
            "vp": tuple(math.sqrt(math.expm1(0.5 * VP_BETA_D * t**2 + VP_BETA_MIN * t)) for t in (self.epsilon_s, 1.0)),
        }[self.discretization]
        return (low if self.sigma_min is None else self.sigma_min, high if self.sigma_max is None else self.sigma_max)


@dataclass(frozen=True, kw_only=True)
class OneStep(Checked):
    """The sampler of a distilled generator: one evaluation at sigma z, z ~ N(0, I)."""

    one_step_sigma: float = option(2.5, "Noise level of the generator's input", above=0)
    steps = 1
    solver = "euler"


AnySampler = SamplerConfig | GeneralSamplerConfig | OneStep
"""A table of settings with `one_step_sigma` is a `OneStep`, one with a key of `GENERAL_ONLY` is general."""

_OF_CHURN = ("s_min", "s_max", "s_noise")


def check_churn(given: Iterable[str], sampler: AnySampler) -> None:
    """Raise UsageError where details of a churn were given (keys of the sampler) and there is none."""
    if isinstance(sampler, OneStep) or sampler.churn:
        return
    known = by_key(type(sampler))
    if idle := [k for k in _OF_CHURN if k in given and getattr(sampler, k) != known[k].default]:
        raise UsageError(f"{', '.join(idle)} without churn: add --churn AMOUNT, or leave it out")


GENERAL_ONLY = frozenset(GeneralSamplerConfig.__dataclass_fields__) - frozenset(SamplerConfig.__dataclass_fields__)
"""Choices that only the general sampler has."""


def evaluations(sampler: AnySampler) -> int:
    """Passes through the network for one generated image."""
    return sampler.steps if sampler.solver == "euler" else 2 * sampler.steps - 1
