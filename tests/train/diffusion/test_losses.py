"""The ambient loss: equal to EDM's on clean images, and minimised by the true denoiser on noisy ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ambient_theory.shared.errors import UsageError
from ambient_train import stateless
from ambient_train.data.noise_models import TABLE as NOISE_MODELS
from ambient_train.diffusion.denoising_error import DenoisingErrorTracker
from ambient_train.diffusion.losses import TABLE
from ambient_train.diffusion.losses._base import LossInputs, edm_weight
from ambient_train.diffusion.losses.optimal import relative_weight
from ambient_train.diffusion.noise_levels import LevelTable

S = 0.5  # standard deviation of the Gaussian clean law in these tests
WHITE = NOISE_MODELS["white"]
MIXED = LevelTable.of(torch.tensor([0.0] * 30 + [0.2] * 50 + [0.6] * 20))


def constant(n: int, value: float) -> Tensor:
    return torch.full((n,), value, dtype=torch.float64)


def gaussian_batch(n: int, sigma: float, sigma_n: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """x0 ~ N(0, S^2), y = x0 + sigma_n z, x_t = y + sqrt(sigma^2 - sigma_n^2) eps; each [n, 1, 1, 1] float64."""
    z = stateless.normal(seed, "test", torch.arange(n), (3, 1, 1), torch.float64)
    x0 = S * z[:, 0:1]
    y = WHITE.corrupt(x0, constant(n, sigma_n), z[:, 1:2])
    return x0, y, WHITE.diffuse(y, constant(n, sigma), constant(n, sigma_n), z[:, 2:3])


def inputs(denoised: Tensor, y: Tensor, x_t: Tensor, sigma: Tensor, sigma_n: Tensor, **more: Any) -> LossInputs:
    more = {"table": MIXED, "error": constant(len(y), 0.1), **more}
    return LossInputs(denoised=denoised, y=y, x_t=x_t, sigma=sigma, sigma_n=sigma_n, noise=WHITE, **more)


@pytest.mark.parametrize("weight", list(TABLE))
def test_loss_of_clean_images_is_edms_loss_exactly(weight: str) -> None:
    y, d, eps = torch.randn(3, 6, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    sigma = torch.tensor([0.01, 0.1, 0.5, 1.0, 5.0, 80.0], dtype=torch.float64)
    zero = constant(6, 0.0)
    x_t = WHITE.diffuse(y, sigma, zero, eps)
    assert torch.equal(x_t, y + sigma.float().reshape(-1, 1, 1, 1) * eps)
    loss = TABLE[weight](inputs(d, y, x_t, sigma, zero, table=LevelTable.of(torch.zeros(5))))
    edm = ((sigma**2 + 0.25) / (sigma * 0.5) ** 2).float() * (d - y).square().sum(dim=(1, 2, 3))
    assert torch.equal(loss, edm)


@pytest.mark.parametrize("weight", list(TABLE))
@pytest.mark.parametrize(("sigma", "sigma_n"), [(0.22, 0.2), (0.5, 0.2), (0.7, 0.6), (3.0, 0.6)])
def test_true_denoiser_is_the_minimiser_at_every_level_above_the_noise(
    weight: str, sigma: float, sigma_n: float
) -> None:
    n = 40_000
    _, y, x_t = gaussian_batch(n, sigma, sigma_n)
    s, sn = constant(n, sigma), constant(n, sigma_n)
    best = S**2 / (S**2 + sigma**2)

    def gradient(a: float) -> Tensor:
        leaf = constant(n, a).reshape(-1, 1, 1, 1).requires_grad_()
        TABLE[weight](inputs(leaf * x_t, y, x_t, s, sn)).sum().backward()
        assert leaf.grad is not None
        return leaf.grad.flatten()

    g = gradient(best)
    assert abs(float(g.mean())) < 4 * float(g.std()) / n**0.5
    wrong = gradient(best * 1.3 + 0.05)
    assert abs(float(wrong.mean())) > 4 * float(wrong.std()) / n**0.5


def test_x0_weight_is_the_y_weight_without_its_vanishing_factor() -> None:
    _, y, x_t = gaussian_batch(50, 0.5, 0.3)
    s, sn = constant(50, 0.5), constant(50, 0.3)
    x = inputs(0.4 * x_t, y, x_t, s, sn)
    torch.testing.assert_close(TABLE["x0"](x) * (1 - 0.36) ** 2, TABLE["y"](x), rtol=1e-10, atol=0)
    direct = edm_weight(s) * (x.denoised - WHITE.target(y, x_t, s, sn)).square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(TABLE["x0"](x), direct, rtol=1e-10, atol=0)


@pytest.mark.parametrize("weight", list(TABLE))
def test_loss_permutes_with_its_batch(weight: str) -> None:
    _, y, x_t = gaussian_batch(8, 0.5, 0.3)
    s = torch.linspace(0.7, 2, 8, dtype=torch.float64)
    sn = torch.tensor([0.0, 0.6] * 4, dtype=torch.float64)
    error = torch.linspace(0.1, 0.3, 8, dtype=torch.float64)
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    loss = TABLE[weight](inputs(0.3 * x_t, y, x_t, s, sn, error=error))
    moved = inputs(0.3 * x_t[order], y[order], x_t[order], s[order], sn[order], error=error[order])
    assert torch.equal(TABLE[weight](moved), loss[order])


@pytest.mark.parametrize("weight", list(TABLE))
def test_a_loss_says_truly_whether_it_is_finite_at_the_noise_level(weight: str) -> None:
    _, y, x_t = gaussian_batch(4, 0.3, 0.3)
    loss = TABLE[weight](inputs(0.3 * x_t, y, x_t, constant(4, 0.3), constant(4, 0.3)))
    assert bool(torch.isfinite(loss).all()) == TABLE[weight].finite_at_lowest_level


def weights_of_a_level(sigma: float, error: float, **more: Any) -> tuple[Tensor, Tensor]:
    """sigma_n of all images of MIXED that are usable at sigma, and their relative weights."""
    usable = torch.repeat_interleave(MIXED.levels, MIXED.counts)
    usable = usable[usable * 1.05 < sigma]
    n = len(usable)
    none = torch.zeros(n, 1, 1, 1)
    x = inputs(none, none, none, constant(n, sigma), usable, error=constant(n, error), **more)
    return usable, relative_weight(x)


@pytest.mark.parametrize("sigma", [0.3, 0.7, 2.0])
@pytest.mark.parametrize("error", [0.005, 0.02, 0.2])
def test_optimal_weights_stand_as_v_to_v_plus_the_noise_of_the_target(sigma: float, error: float) -> None:
    sigma_n, w = weights_of_a_level(sigma, error, cap=1e9)
    v = torch.where(sigma_n > 0, sigma_n**2 * sigma**2 / (sigma**2 - sigma_n**2), 0.0)
    torch.testing.assert_close(w / w[0], error / (error + v), rtol=1e-12, atol=0)
    assert float(w.mean()) == pytest.approx(1.0)


@pytest.mark.parametrize("sigma", [0.3, 0.7, 2.0])
def test_optimal_weights_minimise_the_variance_of_the_pooled_estimate(sigma: float) -> None:
    """The mean of targets of variance V + v under weights w has variance sum w^2 (V + v)/(sum w)^2."""
    error = 0.02
    sigma_n, best = weights_of_a_level(sigma, error, cap=1e9)
    variance = error + torch.where(sigma_n > 0, WHITE.target_variance(constant(1, sigma), sigma_n), 0.0)

    def pooled(w: Tensor) -> float:
        return float((w**2 * variance).sum() / w.sum() ** 2)

    assert pooled(best) == pytest.approx(1 / float((1 / variance).sum()))  # Gauss-Markov
    for power in (0.0, 0.5, 1.5):  # equal weights, and bent ones
        assert pooled(best**power) > pooled(best) * 1.0001


def test_optimal_weights_are_capped() -> None:
    _, w = weights_of_a_level(0.7, 1e-6, cap=3.0)
    assert float(w.max()) == 3.0
    _, free = weights_of_a_level(0.7, 1e-6, cap=1e9)
    assert float(free.max()) > 3.2


def test_optimal_loss_is_the_x0_loss_times_the_relative_weight() -> None:
    _, y, x_t = gaussian_batch(6, 0.9, 0.6)
    x = inputs(0.4 * x_t, y, x_t, constant(6, 0.9), constant(6, 0.6))
    torch.testing.assert_close(TABLE["optimal"](x), TABLE["x0"](x) * relative_weight(x), rtol=1e-12, atol=0)
    assert float(relative_weight(x)[0]) < 0.7  # so that it is not the x0 loss itself


def test_denoising_error_tracker_finds_the_gaussian_posterior_variance() -> None:
    sigma_value, n = 0.7, 4000
    truth = S**2 * sigma_value**2 / (S**2 + sigma_value**2)
    for sigma_n in (0.0, 0.4):
        _, y, x_t = gaussian_batch(n, sigma_value, sigma_n, seed=9)
        s, sn = constant(n, sigma_value), constant(n, sigma_n)
        tracker = DenoisingErrorTracker(sigma_data=3.0)  # a wrong fallback, so that only data can be right
        tracker.update(tracker.measure(inputs(S**2 / (S**2 + sigma_value**2) * x_t, y, x_t, s, sn)))
        noise = float(WHITE.target_variance(s, sn)[0])
        stderr = (truth + noise) * (2 / n) ** 0.5
        assert abs(float(tracker(s[:1])) - truth) < 4 * stderr
    untouched = DenoisingErrorTracker(sigma_data=S)
    assert float(untouched(torch.tensor([0.7]).double())) == pytest.approx(truth, rel=1e-6)
    untouched.update(untouched.nothing())
    assert float(untouched(torch.tensor([0.7]).double())) == pytest.approx(truth, rel=1e-6)


def test_unknown_weight_and_missing_state_are_refused() -> None:
    _, y, x_t = gaussian_batch(2, 0.5, 0.3)
    with pytest.raises(UsageError, match="optimal, x0, y"):
        TABLE["z"]
    with pytest.raises(UsageError, match=r"needs V\(sigma\)"):
        TABLE["optimal"](inputs(y, y, x_t, constant(2, 0.5), constant(2, 0.3), error=None))
