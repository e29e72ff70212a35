"""What y says about x: the identities of every noise model, with their negative controls."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ambient_train import stateless
from ambient_train.data.noise_models import TABLE

S = 0.5  # standard deviation of the Gaussian clean law in these tests
WHITE = TABLE["white"]


def constant(n: int, value: float) -> Tensor:
    return torch.full((n,), value, dtype=torch.float64)


def gaussian_batch(n: int, sigma: float, sigma_n: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """x0 ~ N(0, S^2), y = x0 + sigma_n z, x_t = y + sqrt(sigma^2 - sigma_n^2) eps; each [n, 1, 1, 1] float64."""
    z = stateless.normal(seed, "test", torch.arange(n), (3, 1, 1), torch.float64)
    x0 = S * z[:, 0:1]
    y = WHITE.corrupt(x0, constant(n, sigma_n), z[:, 1:2])
    return x0, y, WHITE.diffuse(y, constant(n, sigma), constant(n, sigma_n), z[:, 2:3])


def test_noise_of_an_image_is_a_function_of_seed_and_id() -> None:
    for name in TABLE:
        whole = TABLE[name].noise(1, torch.tensor([5, 2**40, 0]), (2, 4, 4))
        assert torch.equal(TABLE[name].noise(1, torch.tensor([2**40]), (2, 4, 4))[0], whole[1])
        assert not torch.equal(TABLE[name].noise(2, torch.tensor([5]), (2, 4, 4))[0], whole[0])


@pytest.mark.parametrize("name", list(TABLE))
def test_clean_images_are_themselves(name: str) -> None:
    model, zero, sigma = TABLE[name], constant(4, 0.0), constant(4, 0.7)
    x, z, d = torch.randn(3, 4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.corrupt(x, zero, z), x)
    assert torch.equal(model.lowest_level(zero), zero)
    assert torch.equal(model.conditional_mean(d, x, sigma, zero), d)
    assert torch.equal(model.target(x, z, sigma, zero), x)
    assert torch.equal(model.target_variance(sigma, zero), zero)
    assert torch.equal(model.attenuation(sigma, zero), zero + 1)


@pytest.mark.parametrize("name", list(TABLE))
def test_error_at_y_is_the_attenuated_error_at_the_target(name: str) -> None:
    model, sigma, sigma_n = TABLE[name], constant(4, 0.7), constant(4, 0.5)
    y, x_t, d = torch.randn(3, 4, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    direct = model.conditional_mean(d, x_t, sigma, sigma_n) - y
    through = model.attenuation(sigma, sigma_n).reshape(-1, 1, 1, 1) * (d - model.target(y, x_t, sigma, sigma_n))
    torch.testing.assert_close(direct, through, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("sigma", "sigma_n"), [(0.25, 0.2), (2.0, 0.6)])
def test_diffused_images_have_noise_of_the_diffusion_level(sigma: float, sigma_n: float) -> None:
    n = 200_000
    x0, y, x_t = gaussian_batch(n, sigma, sigma_n, seed=5)
    # the variance of n Gaussian numbers has relative standard error sqrt(2/n) = 0.3 %
    assert float((x_t - x0).var()) == pytest.approx(sigma**2, rel=0.013)
    assert float((y - x0).var()) == pytest.approx(sigma_n**2, rel=0.013)
    assert float((x_t - y).var()) != pytest.approx(sigma**2, rel=0.013)  # the control: the added part alone


@pytest.mark.parametrize(("sigma", "sigma_n"), [(0.3, 0.2), (1.0, 0.2), (1.0, 0.9), (40.0, 0.6)])
def test_conditional_mean_turns_the_mean_of_x0_into_the_mean_of_y(sigma: float, sigma_n: float) -> None:
    x_t = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(-1, 1, 1, 1)
    mean_x0 = S**2 / (S**2 + sigma**2) * x_t
    mean_y = (S**2 + sigma_n**2) / (S**2 + sigma**2) * x_t
    found = WHITE.conditional_mean(mean_x0, x_t, constant(9, sigma), constant(9, sigma_n))
    torch.testing.assert_close(found, mean_y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("sigma", "sigma_n"), [(0.25, 0.2), (0.5, 0.2), (2.0, 0.6)])
def test_target_is_the_clean_image_plus_independent_noise_of_the_stated_variance(sigma: float, sigma_n: float) -> None:
    n = 200_000
    x0, y, x_t = gaussian_batch(n, sigma, sigma_n, seed=3)
    s, sn = constant(n, sigma), constant(n, sigma_n)
    residual = (WHITE.target(y, x_t, s, sn) - x0).flatten()
    v = sigma_n**2 * sigma**2 / (sigma**2 - sigma_n**2)
    assert float(WHITE.target_variance(s, sn)[0]) == pytest.approx(v)
    # the variance of n Gaussian numbers has relative standard error sqrt(2/n) = 0.3 %
    assert float(residual.var()) == pytest.approx(v, rel=0.01)
    for other in (x_t.flatten(), x0.flatten()):
        assert abs(float(torch.corrcoef(torch.stack([residual, other]))[0, 1])) < 4 / n**0.5
    assert abs(float(torch.corrcoef(torch.stack([residual, y.flatten()]))[0, 1])) > 4 / n**0.5  # it is y's own noise
