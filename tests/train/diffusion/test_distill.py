"""Score distillation of Gaussians by linear denoisers: where the generator rests, and where a wrong critic takes it.

In the directions in which all is diagonal a denoiser is D = c_skip x + c_out c_in F(sigma) x, with F at knots over
ln sigma from `lowest` up, linear between them, and below as at the lowest: like a network it extrapolates, wrongly.
Teacher and critic are the least-squares solutions of their losses: at each level the loss has the true denoiser of the
law of its images as its optimum (test_losses), and its curvature in F is uniform in the law of sigma but for E x_t^2. A
critic of the data's own levels is fitted where the teacher was, a plain one at all levels.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ambient_train import stateless
from ambient_train.diffusion.distill import generator_levels, generator_loss
from ambient_train.diffusion.noise_levels import P_MEAN, P_STD

SD, KNOTS, HIGH = 0.5, 12, 40.0
SIGMA_N = 0.5
NOISY_ONLY, MIXTURE = 1.05 * SIGMA_N, 0.02
"""Lowest level that is trained: the buffer above the noise of the data, or far below where some images are clean."""
SCATTER = {1: (1.0,), 3: (1.0, 0.6, 0.15)}
LEVELS, DRAWS = 40, 2000


def test_levels_of_the_generator_are_edms_from_the_lowest_to_a_fifth_of_the_way_down() -> None:
    ends = generator_levels(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert float(ends[0]) == pytest.approx(0.002)
    assert float(ends[1]) == pytest.approx(24.4, rel=2e-3)
    assert bool((generator_levels(torch.linspace(0, 1, 9, dtype=torch.float64)).diff() > 0).all())


def test_generator_loss_is_its_formula_with_a_constant_omega() -> None:
    phi, psi, x = torch.randn(3, 4, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x.requires_grad_()
    loss = generator_loss(phi, psi, x, 1.2)
    omega = (x - phi).abs().mean(dim=(1, 2, 3)).detach()
    torch.testing.assert_close(loss, ((phi - psi) * ((phi - x) - 1.2 * (phi - psi))).sum(dim=(1, 2, 3)) / omega)
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    torch.testing.assert_close(gradient, -(phi - psi) / omega.reshape(-1, 1, 1, 1))
    same = generator_loss(phi, psi, phi.clone().requires_grad_(), 1.0)
    assert bool(torch.isfinite(same).all())  # omega has a least value


def place(sigma: np.ndarray, lowest: float) -> tuple[np.ndarray, np.ndarray]:
    """The knot below each level, and the share of the next one."""
    p = (np.log(sigma) - math.log(lowest)) / (math.log(HIGH) - math.log(lowest)) * (KNOTS - 1)
    p = p.clip(0, KNOTS - 1 - 1e-9)
    return p.astype(int), p - p.astype(int)


def gain(variance: float, sigma: Tensor, lowest: float, trained_above: float) -> Tensor:
    """D/x at `sigma` of the denoiser that is fitted to numbers of this variance at levels above `trained_above`."""
    u = np.linspace(-4.5, 4.5, 2001)
    s = np.exp(P_MEAN + P_STD * u)
    skip, out = SD**2 / (s**2 + SD**2), s * SD / (s**2 + SD**2)
    weight = np.exp(-(u**2) / 2) * (s > trained_above) * (variance + s**2) / (s**2 + SD**2)
    below, share = place(s, lowest)
    rows = np.zeros((len(s), KNOTS))
    rows[np.arange(len(s)), below] = 1 - share
    rows[np.arange(len(s)), below + 1] += share
    wanted = (variance / (variance + s**2) - skip) / out
    root = np.sqrt(weight)
    f = np.linalg.lstsq(root[:, None] * rows, root * wanted, rcond=None)[0]
    below, share = place(sigma.numpy(), lowest)
    at = torch.from_numpy(f[below] * (1 - share) + f[below + 1] * share)
    return (SD**2 + sigma * SD * at) / (sigma**2 + SD**2)


@functools.cache
def slopes(d: int, lowest: float, factors: tuple[float, ...], plain: bool = False) -> Tensor:
    """Mean slope of the generator's loss in each of d standard deviations, at `factors` times the clean ones."""
    true = SCATTER[d]
    sigma = generator_levels((torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS)
    fitted = functools.partial(gain, sigma=sigma, lowest=lowest)
    of_critic = [v * f**2 for v, f in zip(true, factors, strict=True)]
    phi = torch.stack([fitted(v, trained_above=lowest) for v in true], 1)
    psi = torch.stack([fitted(v, trained_above=0.0 if plain else lowest) for v in of_critic], 1)
    z, n = stateless.normal(0, "toy", torch.arange(DRAWS * LEVELS), (2, 1, 1, d), torch.float64).transpose(0, 1)
    level = sigma.repeat_interleave(DRAWS).reshape(-1, 1, 1, 1)
    a, b = (g.repeat_interleave(DRAWS, 0).reshape(-1, 1, 1, d) for g in (phi, psi))
    spread = torch.tensor([v**0.5 for v in of_critic], dtype=torch.float64, requires_grad=True)
    x = z * spread
    x_t = x + level * n
    (slope,) = torch.autograd.grad(generator_loss(a * x_t, b * x_t, x, 1.2).mean(), spread)
    return slope


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("lowest", [NOISY_ONLY, MIXTURE])
def test_generator_rests_at_the_covariance_of_the_clean_images(d: int, lowest: float) -> None:
    """Exactly there, whatever both extrapolate; 2 % of the variance to either side it is driven back."""
    assert float(slopes(d, lowest, (1.0,) * d).abs().max()) < 1e-12
    for i in range(d):
        for factor, sign in ((0.99, -1), (1.01, 1), (0.7, -1), (1.4, 1)):
            factors = tuple(factor if j == i else 1.0 for j in range(d))
            assert sign * float(slopes(d, lowest, factors)[i]) > 0, (i, factor)
    for factor, sign in ((0.99, -1), (1.01, 1)):  # in all directions at once
        assert bool((sign * slopes(d, lowest, (factor,) * d) > 0).all())


def test_a_critic_trained_as_plain_diffusion_drives_it_elsewhere() -> None:
    """Noisy only: still outwards 10 % of the variance above the clean one, where the right critic drives back."""
    for d in (1, 3):
        beyond = slopes(d, NOISY_ONLY, (1.05,) * d, plain=True)
        assert float(beyond[0]) < 0
        assert float(slopes(d, NOISY_ONLY, (1.05,) * d)[0]) > 0
    # where some images are clean the teacher is right at all levels, and both critics are the same
    mixed = [slopes(3, MIXTURE, (1.05,) * 3, plain=plain) for plain in (False, True)]
    torch.testing.assert_close(mixed[0], mixed[1], rtol=0.2, atol=1e-3)
