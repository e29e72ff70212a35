"""The general sampler: EDM's own choices are EDM's sampler bit for bit; all others reach the same law."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import brentq

from ambient_theory.shared.errors import UsageError
from ambient_train.diffusion.ablation_sampler import (
    DISCRETIZATIONS,
    SCALINGS,
    SCHEDULES,
    VP_BETA_D,
    VP_BETA_MIN,
    GeneralSamplerConfig,
    VPSchedule,
    general_sampler,
    make_schedule,
    noise_levels,
)
from ambient_train.diffusion.sampling import SamplerConfig, heun, sigma_schedule

torch.set_num_threads(1)

MEANS, WEIGHTS, SPREAD = torch.tensor([-0.9, 0.2, 1.0], dtype=torch.float64), torch.tensor([0.3, 0.5, 0.2]), 0.15
CHOICES = list(itertools.product(DISCRETIZATIONS, SCHEDULES, SCALINGS))


def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """E[x_0 | x_0 + sigma z = x] for the mixture of Gaussians with standard deviation SPREAD."""
    variance = SPREAD**2 + sigma**2
    log_weights = WEIGHTS.double().log() - (x[..., None] - MEANS) ** 2 / (2 * variance)
    posterior = torch.softmax(log_weights, -1)
    return (posterior * (MEANS * sigma**2 + x[..., None] * SPREAD**2) / variance).sum(-1)


def cdf(x: np.ndarray, sigma: float = 0.0) -> np.ndarray:
    scale = math.hypot(SPREAD, sigma)
    parts = [w * stats.norm.cdf(x, m, scale) for w, m in zip(WEIGHTS.tolist(), MEANS.tolist(), strict=True)]
    return np.sum(parts, axis=0)


def exact_endpoint(latent: float, sigma_max: float) -> float:
    """In one dimension the flow keeps quantiles: F_0(x_0) = F_sigma_max(sigma_max latent)."""
    quantile = float(cdf(np.array(sigma_max * latent), sigma_max))
    return brentq(lambda x: float(cdf(np.array(x))) - quantile, -5, 5, xtol=1e-13)


PUBLISHED = {
    "vp": {"discretization": "vp", "schedule": "vp", "scaling": "vp", "solver": "euler"},
    "ve": {"discretization": "ve", "schedule": "ve", "scaling": "none", "solver": "euler"},
    "iddpm": {"discretization": "iddpm", "schedule": "linear", "scaling": "none", "solver": "euler"},
    "edm": {},
}


def published(name: str, **changes: object) -> GeneralSamplerConfig:
    """The sampler of a row of Table 1, with changes."""
    return GeneralSamplerConfig(**{**PUBLISHED[name], **changes})  # type: ignore[arg-type]


def latents(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 1, 1, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("solver", ["heun", "euler"])
@pytest.mark.parametrize("churn", [0.0, 12.0])
def test_edm_choices_are_the_plain_sampler_bit_for_bit(solver: str, churn: float) -> None:
    settings = {"steps": 11, "solver": solver, "churn": churn, "s_min": 0.05, "s_max": 50.0, "s_noise": 1.003}
    start = latents(50)
    plain_config = SamplerConfig(**settings)
    sigmas = sigma_schedule(plain_config)

    def noise(i: int) -> torch.Tensor:
        return latents(50, seed=100 + i)

    keywords = {k: v for k, v in settings.items() if k != "steps"}
    plain = heun(denoise, start * sigmas[0], sigmas, noise=noise, **keywords)
    general = general_sampler(denoise, start, GeneralSamplerConfig(**settings), noise=noise)
    assert torch.equal(noise_levels(GeneralSamplerConfig(**settings)), sigmas[:-1])
    assert torch.equal(general, plain)
    stopped = GeneralSamplerConfig(**settings, stop_sigma=0.3)
    assert torch.equal(
        general_sampler(denoise, start, stopped, noise=noise),
        heun(denoise, start * sigmas[0], sigmas, noise=noise, stop_sigma=0.3, **keywords),
    )


@pytest.mark.parametrize(("discretization", "schedule", "scaling"), CHOICES)
def test_every_choice_converges_to_the_exact_flow(discretization: str, schedule: str, scaling: str) -> None:
    start = latents(40)
    bounds = {"sigma_min": 0.002, "sigma_max": 80.0}
    exact = torch.tensor([exact_endpoint(float(z), 80.0) for z in start.flatten()], dtype=torch.float64)
    errors = []
    for steps in (64, 256):
        config = GeneralSamplerConfig(
            steps=steps, discretization=discretization, schedule=schedule, scaling=scaling, **bounds
        )
        out = general_sampler(denoise, start, config).flatten()
        errors.append(float((out - exact).square().mean().sqrt()))
    assert errors[1] < 0.05
    assert errors[1] < 0.3 * errors[0] + 2e-4  # second order would be 1/16, down to a floor set by sigma_min


@pytest.mark.parametrize(("solver", "alpha", "order"), [("euler", 1.0, 1), ("heun", 1.0, 2), ("heun", 0.5, 2)])
def test_solvers_have_their_order(solver: str, alpha: float, order: int) -> None:
    """Halving the step divides the error by 2^order."""
    start = latents(100)
    exact = torch.tensor([exact_endpoint(float(z), 80.0) for z in start.flatten()], dtype=torch.float64)
    errors = []
    for steps in (256, 512, 1024) if solver == "euler" else (64, 128, 256):
        config = GeneralSamplerConfig(steps=steps, solver=solver, alpha=alpha)
        errors.append(float((general_sampler(denoise, start, config).flatten() - exact).square().mean().sqrt()))
    for coarse, fine in itertools.pairwise(errors):
        assert abs(math.log2(coarse / fine) - order) < 0.25


@pytest.mark.parametrize("name", ["vp", "ve", "iddpm", "edm"])
def test_stochastic_samples_have_the_law_of_the_data(name: str) -> None:
    n = 4000
    config = published(name, steps=96, solver="heun", churn=30.0)

    def noise(i: int) -> torch.Tensor:
        return latents(n, seed=1000 + i)

    out = general_sampler(denoise, latents(n, 7), config, noise=noise).flatten().numpy()
    assert stats.kstest(out, cdf).pvalue > 1e-3
    rough = general_sampler(denoise, latents(n, 7), published(name, steps=5, solver="euler"))
    assert stats.kstest(rough.flatten().numpy(), cdf).pvalue < 1e-6  # the test can tell


def test_published_levels_are_those_of_the_paper() -> None:
    vp = noise_levels(published("vp", steps=5))
    t = 1 + torch.arange(5, dtype=torch.float64) / 4 * (1e-3 - 1)
    expected = (torch.exp(0.5 * VP_BETA_D * t**2 + VP_BETA_MIN * t) - 1).sqrt()
    torch.testing.assert_close(vp, expected, rtol=1e-10, atol=0)
    ve = noise_levels(published("ve", steps=3))
    torch.testing.assert_close(ve, torch.tensor([100.0, math.sqrt(100 * 0.02), 0.02], dtype=torch.float64))
    iddpm = noise_levels(published("iddpm", steps=10))
    assert iddpm[0] <= 81
    assert iddpm[-1] >= 0.002
    for config in (published("vp"), published("ve"), published("iddpm"), published("edm")):
        levels = noise_levels(config)
        assert (levels.diff() < 0).all()


def test_iddpm_grid_is_the_cosine_schedule() -> None:
    """u_j^2 = 1/alpha_bar_j - 1 up to normalisation at j = M, where no ratio is clipped (Nichol and Dhariwal 2021)."""
    config = GeneralSamplerConfig(discretization="iddpm", m=50, steps=40, sigma_min=1e-9, sigma_max=10.0)
    levels = noise_levels(config)
    j = torch.arange(50, dtype=torch.float64)
    a = (math.pi / 2 * j / 50 / 1.008).sin() ** 2
    end = math.sin(math.pi / 2 / 1.008) ** 2
    closed = (end / a[1:] - 1).sqrt()
    for level in levels:
        assert float((closed - level).abs().min()) < 1e-9


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedule_derivative_and_inverse(schedule: str) -> None:
    made = make_schedule(GeneralSamplerConfig(schedule=schedule))
    sigma = torch.logspace(-2, 1.8, 20, dtype=torch.float64)
    t = made.inverse(sigma)
    torch.testing.assert_close(made.sigma(t), sigma, rtol=1e-9, atol=0)
    h = 1e-6 * t
    slope = (made.sigma(t + h) - made.sigma(t - h)) / (2 * h)
    torch.testing.assert_close(made.derivative(t), slope, rtol=1e-6, atol=0)


def test_vp_schedule_meets_its_end_points() -> None:
    made = VPSchedule.between(0.002, 80.0, 1e-3)
    ends = made.sigma(torch.tensor([1e-3, 1.0], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([0.002, 80.0], dtype=torch.float64), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "rk4"},
        {"discretization": "cosine"},
        {"schedule": "cosine"},
        {"scaling": "ve"},
        {"steps": 1},
        {"sigma_min": 3.0, "sigma_max": 2.0},
        {"alpha": 0.0},
        {"churn": -1.0},
        {"rho": 0.0},
    ],
)
def test_choices_that_do_not_exist_are_refused(settings: dict) -> None:
    with pytest.raises(UsageError):
        GeneralSamplerConfig(**settings)


def test_impossible_grids_are_refused() -> None:
    with pytest.raises(UsageError, match="fewer than 40"):
        noise_levels(GeneralSamplerConfig(discretization="iddpm", m=20, steps=40))
    with pytest.raises(UsageError, match="no vp schedule"):
        noise_levels(GeneralSamplerConfig(discretization="vp", sigma_min=50.0, sigma_max=60.0))
    with pytest.raises(UsageError, match="source of noise"):
        general_sampler(denoise, latents(2), GeneralSamplerConfig(churn=5.0))
    with pytest.raises(UsageError, match="not one of"):
        GeneralSamplerConfig(discretization="ddim")
