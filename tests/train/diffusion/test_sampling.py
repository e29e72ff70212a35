"""The sampler against laws whose score is known, and image k as a function of seed k alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from ambient_theory.shared.errors import UsageError
from ambient_train.diffusion.generate import sample
from ambient_train.diffusion.sampler_settings import GeneralSamplerConfig
from ambient_train.diffusion.sampling import SamplerConfig, heun, parse_seeds, sigma_schedule

ATOMS, SHARES, WIDTH = torch.tensor([-0.6, 0.5]).double(), torch.tensor([0.4, 0.6]).double(), 0.1


def mixture_denoiser(x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
    """E[x0 | x] for pixels that are independent draws of a mixture of two Gaussians of width WIDTH."""
    total = WIDTH**2 + sigma.double() ** 2
    z = x.double()[..., None]
    log_weight = SHARES.log() - (z - ATOMS) ** 2 / (2 * total)
    posterior = torch.softmax(log_weight, dim=-1)
    mean = (ATOMS * sigma.double() ** 2 + z * WIDTH**2) / total
    return (posterior * mean).sum(-1)


def mixture_cdf(x: np.ndarray) -> np.ndarray:
    return sum(float(w) * stats.norm(float(a), WIDTH).cdf(x) for a, w in zip(ATOMS, SHARES, strict=True))


def draw(config: SamplerConfig, n: int = 500) -> np.ndarray:
    out = torch.cat(list(sample(mixture_denoiser, range(n), (1, 2, 2), config)))
    return out.flatten().numpy()


@pytest.mark.parametrize("churn", [0.0, 20.0])
def test_heun_reaches_the_law_of_a_gaussian_mixture(churn: float) -> None:
    x = draw(SamplerConfig(steps=40, churn=churn))
    assert stats.kstest(x, mixture_cdf).pvalue > 0.001


def test_too_few_euler_steps_do_not() -> None:  # negative control
    assert stats.kstest(draw(SamplerConfig(steps=4, solver="euler")), mixture_cdf).pvalue < 1e-4


def test_heun_is_exact_to_second_order_on_a_gaussian() -> None:
    scale, x = 0.5, torch.full((1, 1, 1, 1), 3.0).double()

    def error(steps: int, solver: str) -> float:
        sigmas = sigma_schedule(SamplerConfig(steps=steps, sigma_min=0.1, sigma_max=10.0))[:-1]
        out = heun(lambda y, s: scale**2 / (scale**2 + s**2) * y, x, sigmas, solver=solver)
        exact = 3.0 * math.sqrt((scale**2 + 0.1**2) / (scale**2 + 100.0))
        return abs(float(out) - exact)

    order_heun = math.log2(error(40, "heun") / error(80, "heun"))
    order_euler = math.log2(error(40, "euler") / error(80, "euler"))
    assert 1.7 < order_heun < 2.3
    assert 0.7 < order_euler < 1.3


def test_schedule_is_edms() -> None:
    sigmas = sigma_schedule(SamplerConfig(steps=18))
    assert len(sigmas) == 19
    assert float(sigmas[0]) == pytest.approx(80)
    assert float(sigmas[17]) == pytest.approx(0.002)
    assert float(sigmas[18]) == 0
    i = 5
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert float(sigmas[i]) == pytest.approx(expected)


@pytest.mark.parametrize("churn", [0.0, 10.0])
def test_image_of_a_seed_does_not_depend_on_the_batch(churn: float) -> None:
    config = SamplerConfig(steps=5, churn=churn)
    whole = torch.cat(list(sample(mixture_denoiser, range(10), (1, 2, 2), config, batch=10)))
    split = torch.cat(list(sample(mixture_denoiser, range(10), (1, 2, 2), config, batch=3)))
    backwards = torch.cat(list(sample(mixture_denoiser, range(9, -1, -1), (1, 2, 2), config, batch=4)))
    torch.testing.assert_close(whole, split, rtol=0, atol=1e-6)
    torch.testing.assert_close(whole, backwards.flip(0), rtol=0, atol=1e-6)
    assert not torch.allclose(whole[0], whole[1])


def test_sampling_stops_at_the_level_asked_for_with_the_denoised_image_there() -> None:
    seen: list[float] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(float(sigma))
        return mixture_denoiser(x, sigma)

    sigmas = sigma_schedule(SamplerConfig(steps=18))
    start = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 80
    out = heun(denoise, start, sigmas, stop_sigma=0.2)
    assert min(seen) == 0.2  # between two levels of the schedule
    above = sigmas[sigmas > 0.2]
    assert len(seen) == 2 * len(above) + 1
    last = heun(mixture_denoiser, start, torch.cat([above, torch.tensor([0.2], dtype=torch.float64)]))
    torch.testing.assert_close(
        out, mixture_denoiser(last, torch.tensor(0.2, dtype=torch.float64)).to(torch.float64), rtol=0, atol=1e-12
    )
    on_a_level = float(above[-1])
    seen.clear()
    torch.testing.assert_close(
        heun(denoise, start, sigmas, stop_sigma=on_a_level),
        mixture_denoiser(heun(mixture_denoiser, start, above), above[-1]).to(torch.float64),
        rtol=0,
        atol=1e-12,
    )
    assert len(seen) == 2 * (len(above) - 1) + 1  # no step of no length
    at_once = heun(mixture_denoiser, start, sigmas, stop_sigma=90.0)
    torch.testing.assert_close(at_once, mixture_denoiser(start.double(), sigmas[0]).to(torch.float64))


def test_seed_lists() -> None:
    assert parse_seeds("0-3") == [0, 1, 2, 3]
    assert parse_seeds("1,5,9-11") == [1, 5, 9, 10, 11]
    for bad in ("", "a", "3-1", "1--2", "-1", "1.5", "1000000000000000", "0-1000000000000000"):
        with pytest.raises(UsageError):
            parse_seeds(bad)


@pytest.mark.parametrize(
    "bad",
    [{"steps": 0}, {"sigma_min": 0.0}, {"sigma_min": 90.0}, {"rho": 0.0}, {"churn": -1.0}, {"solver": "rk4"}],
)
def test_bad_sampler_settings_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        SamplerConfig(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "made", [lambda **k: SamplerConfig(sigma_max=20.0, **k), lambda **k: GeneralSamplerConfig(sigma_max=20.0, **k)]
)
def test_a_stop_above_all_levels_is_refused(made) -> None:
    assert made(stop_sigma=19.0).stop_sigma == 19.0
    for stop in (20.0, 30.0):
        with pytest.raises(UsageError, match=f"stop-sigma {stop:g} .* below sigma-max 20"):
            made(stop_sigma=stop)
