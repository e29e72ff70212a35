"""The ambient loss: equal to EDM's on clean images, and minimised by the true denoiser on noisy ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ambient_theory.shared.errors import UsageError
from ambient_train import stateless
from ambient_train.diffusion import losses
from ambient_train.diffusion.noise_levels import LevelTable

S = 0.5  # standard deviation of the Gaussian clean law in these tests


def gaussian_batch(n: int, sigma: float, sigma_n: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """x0 ~ N(0, S^2), y = x0 + sigma_n z, x_t = y + sqrt(sigma^2 - sigma_n^2) eps; each [n, 1, 1, 1] float64."""
    z = stateless.normal(seed, "test", torch.arange(n), (3, 1, 1), torch.float64)
    x0 = S * z[:, 0:1]
    y = x0 + sigma_n * z[:, 1:2]
    x_t = losses.diffuse(
        y, torch.full((n,), sigma, dtype=torch.float64), torch.full((n,), sigma_n, dtype=torch.float64), z[:, 2:3]
    )
    return x0, y, x_t


@pytest.mark.parametrize("weight", ["y", "x0", "optimal"])
def test_loss_of_clean_images_is_edms_loss_exactly(weight: str) -> None:
    y, d, eps = torch.randn(3, 6, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    sigma = torch.tensor([0.01, 0.1, 0.5, 1.0, 5.0, 80.0], dtype=torch.float64)
    zero = torch.zeros(6, dtype=torch.float64)
    x_t = losses.diffuse(y, sigma, zero, eps)
    assert torch.equal(x_t, y + sigma.float().reshape(-1, 1, 1, 1) * eps)
    relative = losses.optimal_weight(sigma, zero, sigma, LevelTable.of(torch.zeros(5)))
    loss = losses.ambient_loss(d, y, x_t, sigma, zero, weight=weight, relative=relative)
    edm = ((sigma**2 + 0.25) / (sigma * 0.5) ** 2).float() * (d - y).square().sum(dim=(1, 2, 3))
    assert torch.equal(loss, edm)


@pytest.mark.parametrize(("sigma", "sigma_n"), [(0.3, 0.2), (1.0, 0.2), (1.0, 0.9), (40.0, 0.6)])
def test_conditional_mean_turns_the_mean_of_x0_into_the_mean_of_y(sigma: float, sigma_n: float) -> None:
    x_t = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(-1, 1, 1, 1)
    s, sn = torch.full((9,), sigma, dtype=torch.float64), torch.full((9,), sigma_n, dtype=torch.float64)
    mean_x0 = S**2 / (S**2 + sigma**2) * x_t
    mean_y = (S**2 + sigma_n**2) / (S**2 + sigma**2) * x_t
    torch.testing.assert_close(losses.conditional_mean(mean_x0, x_t, s, sn), mean_y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weight", ["y", "x0", "optimal"])
@pytest.mark.parametrize(("sigma", "sigma_n"), [(0.22, 0.2), (0.5, 0.2), (0.7, 0.6), (3.0, 0.6)])
def test_true_denoiser_is_the_minimiser_at_every_level_above_the_noise(
    weight: str, sigma: float, sigma_n: float
) -> None:
    n = 40_000
    _, y, x_t = gaussian_batch(n, sigma, sigma_n)
    s, sn = torch.full((n,), sigma, dtype=torch.float64), torch.full((n,), sigma_n, dtype=torch.float64)
    relative = torch.full((n,), 0.7, dtype=torch.float64)
    best = S**2 / (S**2 + sigma**2)

    def gradient(a: float) -> Tensor:
        scale = torch.tensor([a], dtype=torch.float64, requires_grad=True)
        copies = scale.expand(n).reshape(-1, 1, 1, 1)
        leaf = copies.detach().requires_grad_()
        losses.ambient_loss(leaf * x_t, y, x_t, s, sn, weight=weight, relative=relative).sum().backward()
        assert leaf.grad is not None
        return leaf.grad.flatten()

    g = gradient(best)
    assert abs(float(g.mean())) < 4 * float(g.std()) / n**0.5
    wrong = gradient(best * 1.3 + 0.05)
    assert abs(float(wrong.mean())) > 4 * float(wrong.std()) / n**0.5


@pytest.mark.parametrize(("sigma", "sigma_n"), [(0.25, 0.2), (0.5, 0.2), (2.0, 0.6)])
def test_target_is_the_clean_image_plus_independent_noise_of_the_stated_variance(sigma: float, sigma_n: float) -> None:
    n = 200_000
    x0, y, x_t = gaussian_batch(n, sigma, sigma_n, seed=3)
    s, sn = torch.full((n,), sigma, dtype=torch.float64), torch.full((n,), sigma_n, dtype=torch.float64)
    residual = (losses.target(y, x_t, s, sn) - x0).flatten()
    v = sigma_n**2 * sigma**2 / (sigma**2 - sigma_n**2)
    assert float(losses.target_variance(s, sn)[0]) == pytest.approx(v)
    # the variance of n Gaussian numbers has relative standard error sqrt(2/n) = 0.3 %
    assert float(residual.var()) == pytest.approx(v, rel=0.01)
    for other in (x_t.flatten(), x0.flatten()):
        assert abs(float(torch.corrcoef(torch.stack([residual, other]))[0, 1])) < 4 / n**0.5
    assert abs(float(torch.corrcoef(torch.stack([residual, y.flatten()]))[0, 1])) > 4 / n**0.5  # it is y's own noise


def test_x0_weight_is_the_y_weight_without_its_vanishing_factor() -> None:
    _, y, x_t = gaussian_batch(50, 0.5, 0.3)
    s, sn = torch.full((50,), 0.5, dtype=torch.float64), torch.full((50,), 0.3, dtype=torch.float64)
    d = 0.4 * x_t
    y_loss = losses.ambient_loss(d, y, x_t, s, sn, weight="y")
    x0_loss = losses.ambient_loss(d, y, x_t, s, sn, weight="x0")
    torch.testing.assert_close(x0_loss * (1 - 0.36) ** 2, y_loss, rtol=1e-10, atol=0)
    direct = losses.edm_weight(s) * (d - losses.target(y, x_t, s, sn)).square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(x0_loss, direct, rtol=1e-10, atol=0)


def test_loss_permutes_with_its_batch() -> None:
    _, y, x_t = gaussian_batch(8, 0.5, 0.3)
    s = torch.linspace(0.4, 2, 8, dtype=torch.float64)
    sn = torch.tensor([0.0, 0.3] * 4, dtype=torch.float64)
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    loss = losses.ambient_loss(0.3 * x_t, y, x_t, s, sn)
    assert torch.equal(losses.ambient_loss(0.3 * x_t[order], y[order], x_t[order], s[order], sn[order]), loss[order])


def test_optimal_weights_average_to_one_over_the_admissible_images_of_a_level() -> None:
    levels = torch.tensor([0.0] * 10 + [0.2] * 50 + [0.6] * 40, dtype=torch.float64)
    table = LevelTable.of(levels)
    for sigma in (0.1, 0.3, 2.0):
        usable = levels[levels * 1.05 < sigma]
        s = torch.full((len(usable),), sigma, dtype=torch.float64)
        v = torch.full_like(s, 0.02)
        w = losses.optimal_weight(s, usable, v, table, cap=1e9)
        assert float(w.mean()) == pytest.approx(1.0)
        assert (w[usable == 0] >= w.max() - 1e-12).all()
    capped = losses.optimal_weight(s, usable, torch.full_like(s, 1e-6), table, cap=3.0)
    assert float(capped.max()) == 3.0


def test_optimal_weight_minimises_the_variance_of_the_pooled_estimate() -> None:
    # one level, clean error V and noisy error V + v: any other weight ratio has a larger variance per unit weight
    v_clean, v_noise = 0.05, 0.2
    n = torch.tensor([100.0, 900.0])
    variances = torch.tensor([v_clean, v_clean + v_noise])

    def variance(w: Tensor) -> float:
        return float((n * w**2 * variances).sum() / (n * w).sum() ** 2)

    best = torch.tensor([1.0, v_clean / (v_clean + v_noise)])
    for ratio in (0.0, 0.05, 0.5, 1.0):
        assert variance(best) < variance(torch.tensor([1.0, ratio]))


def test_denoising_error_tracker_finds_the_gaussian_posterior_variance() -> None:
    sigma_value, n = 0.7, 4000
    truth = S**2 * sigma_value**2 / (S**2 + sigma_value**2)
    for sigma_n in (0.0, 0.4):
        _, y, x_t = gaussian_batch(n, sigma_value, sigma_n, seed=9)
        s, sn = torch.full((n,), sigma_value, dtype=torch.float64), torch.full((n,), sigma_n, dtype=torch.float64)
        tracker = losses.DenoisingErrorTracker(sigma_data=3.0)  # a wrong fallback, so that only data can be right
        d = S**2 / (S**2 + sigma_value**2) * x_t
        tracker.update(tracker.measure(d, y, x_t, s, sn))
        noise = float(losses.target_variance(s, sn)[0])
        stderr = (truth + noise) * (2 / n) ** 0.5
        assert abs(float(tracker(s[:1])) - truth) < 4 * stderr
    untouched = losses.DenoisingErrorTracker(sigma_data=S)
    assert float(untouched(torch.tensor([0.7]).double())) == pytest.approx(truth, rel=1e-6)


def test_unknown_weight_is_refused_with_the_choices() -> None:
    _, y, x_t = gaussian_batch(2, 0.5, 0.3)
    s = torch.full((2,), 0.5, dtype=torch.float64)
    with pytest.raises(UsageError, match="x0, y, optimal"):
        losses.ambient_loss(y, y, x_t, s, s * 0, weight="z")
    with pytest.raises(UsageError, match="relative"):
        losses.ambient_loss(y, y, x_t, s, s * 0, weight="optimal")
