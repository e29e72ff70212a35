"""The consistency loss: its expectation, what it teaches below the data's noise, what the biased form does there."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import Tensor

from ambient_train import stateless
from ambient_train.diffusion.consistency import (
    Anchors,
    consistency,
    default_batch,
    draw_anchors,
    penalty,
    reverse_sde,
)

SIGMA_N, LOWEST = 0.5, 0.02
RATE = 0.01
LEVELS = torch.full((10,), SIGMA_N, dtype=torch.float64)


class Table:
    """A denoiser D = gain(sigma) x of numbers of variance 1: a gain at each of 24 levels up to SIGMA_N, the true one at
    SIGMA_N itself, and between them linear in ln sigma. It begins with the gain of SIGMA_N everywhere."""

    def __init__(self) -> None:
        self.truth = 1 / (1 + SIGMA_N**2)
        self.gains = torch.full((24,), self.truth, dtype=torch.float64, requires_grad=True)
        self.low = math.log(LOWEST / 20)

    def gain(self, sigma: Tensor) -> Tensor:
        place = (sigma.log() - self.low) / (math.log(SIGMA_N) - self.low) * 24
        below = place.clamp(0, 24 - 1e-9).long()
        every = torch.cat([self.gains, self.gains.new_tensor([self.truth])])
        return torch.lerp(every[below], every[below + 1], place.clamp(0, 24) - below)

    def __call__(self, x: Tensor, sigma: Tensor, copies: int = 1) -> Tensor:
        return self.gain(sigma).reshape(-1, 1, 1, 1) * x

    def error(self) -> float:
        """Mean of |gain - 1/(1 + sigma^2)| over ln sigma below SIGMA_N."""
        sigma = torch.exp(torch.linspace(math.log(LOWEST), math.log(SIGMA_N), 200, dtype=torch.float64))
        return float((self.gain(sigma) - 1 / (1 + sigma**2)).detach().abs().mean())


@functools.cache
def learned(form: str, samples: int, steps: int, span: float = 2.0, euler: bool = False) -> float:
    """Error of the table after 500 steps on 512 anchors, noisy numbers only. euler: Euler's step whatever the form."""
    table, batch, last = Table(), 512, 500
    stream = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam([table.gains], lr=RATE)
    average = table.gains.detach().clone()
    for step in range(last):
        optimiser.param_groups[0]["lr"] = RATE * min(1.0, 2 * (1 - step / last))
        sample = torch.arange(step * batch, (step + 1) * batch)
        anchors = draw_anchors(0, sample, LEVELS, buffer=1.0, sigma_min=LOWEST, span=span)

        def noise(purpose: str) -> Tensor:
            return torch.randn(batch, 1, 1, 1, generator=stream, dtype=torch.float64)

        y = math.sqrt(1 + SIGMA_N**2) * noise("y")
        if euler:
            loss = consistency_with_euler(table, y, anchors, noise, samples)
        else:
            loss = consistency(table, y, anchors, noise, samples=samples, steps=steps, form=form)
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
        average.lerp_(table.gains.detach(), 0.02)
    with torch.no_grad():
        table.gains.copy_(average)
        return table.error()


def consistency_with_euler(table: Table, y: Tensor, at: Anchors, noise, samples: int) -> Tensor:  # type: ignore[no-untyped-def]
    """The unbiased product on samples of one Euler step."""
    with torch.no_grad():
        x = reverse_sde(table, y, at.start, at.sigma, 1, lambda i: noise("a"), "paper")
        ends = [
            reverse_sde(table, x, at.sigma, at.lower, 1, lambda i, k=k: noise(f"{k}"), "paper") for k in range(samples)
        ]
    return penalty(table(x, at.sigma), torch.stack([table(e, at.lower) for e in ends]), "unbiased")


def test_unbiased_form_extends_the_denoiser_below_the_noise_of_the_data_and_the_published_one_does_not() -> None:
    none = Table().error()
    assert none > 0.1
    good, biased = learned("unbiased", 6, 6), learned("paper", 6, 6)
    assert good < 0.03
    assert good < none / 2
    assert biased > 0.03
    assert biased > none / 2


def test_one_step_and_two_samples_are_enough_and_one_step_of_eulers_method_is_not() -> None:
    assert learned("unbiased", 2, 1, span=1.0) < 0.03
    assert learned("unbiased", 2, 1, span=1.0, euler=True) > max(0.03, Table().error() / 2)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_step_has_the_mean_of_the_posterior_for_a_linear_denoiser_at_any_length(steps: int) -> None:
    """E[x_s' | x_s] of N(0, 1) is x (1 + s'^2)/(1 + s^2); the noise is set to 0."""
    x = torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(5, 1, 1, 1)
    start, end = torch.full((5,), 0.9, dtype=torch.float64), torch.linspace(0.05, 0.8, 5, dtype=torch.float64)

    def true(v: Tensor, t: Tensor) -> Tensor:
        return v / (1 + t.reshape(-1, 1, 1, 1) ** 2)

    def mean(form: str) -> Tensor:
        return reverse_sde(true, x, start, end, steps, lambda i: torch.zeros_like(x), form)

    exact = x * (1 + end.reshape(-1, 1, 1, 1) ** 2) / (1 + 0.9**2)
    torch.testing.assert_close(mean("unbiased"), exact, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(mean("paper"), exact, rtol=0.01)


@pytest.mark.parametrize("form", ["unbiased", "paper"])
def test_the_noise_of_the_samples_approaches_that_of_the_reverse_process(form: str) -> None:
    """Var(x_s') of N(0, 1) data is 1 + s'^2, from x_s of variance 1 + s^2; with 200 steps either form has it."""
    n = 40_000
    start, end = torch.full((n,), 0.9, dtype=torch.float64), torch.full((n,), 0.1, dtype=torch.float64)
    draw = functools.partial(stateless.normal, 3, index=torch.arange(n), shape=(1, 1, 1), dtype=torch.float64)
    x = math.sqrt(1 + 0.9**2) * draw(purpose="x")

    def true(v: Tensor, t: Tensor) -> Tensor:
        return v / (1 + t.reshape(-1, 1, 1, 1) ** 2)

    def variance(steps: int) -> float:
        return float(reverse_sde(true, x, start, end, steps, lambda i: draw(purpose=f"{i}"), form).square().mean())

    expected, stderr = 1 + 0.1**2, (1 + 0.1**2) * (2 / n) ** 0.5
    assert abs(variance(200) - expected) < 4 * stderr + 0.01  # + the error of 200 steps
    assert abs(variance(1) - expected) > 4 * stderr + 0.01


def test_expectation_of_the_product_is_the_squared_bias_and_the_published_form_adds_the_variance() -> None:
    """D' = d + N(0, v): the product has mean (at - d)^2, the square (at - d)^2 + v/K, and K (K/2 = 1 a half) = 2."""
    n, gap, v = 200_000, 0.3, 0.8
    noise = stateless.normal(0, "test", torch.arange(n), (2, 1, 1, 1), torch.float64).transpose(0, 1)
    below, at = math.sqrt(v) * noise, torch.full((n, 1, 1, 1), gap, dtype=torch.float64)
    product, square = penalty(at, below, "unbiased"), penalty(at, below, "paper")
    for found, mean in ((product, gap**2), (square, gap**2 + v / 2)):
        assert abs(float(found.mean()) - mean) < 4 * float(found.std()) / n**0.5
    assert abs(float(square.mean()) - gap**2) > 4 * float(square.std()) / n**0.5


def test_gradient_of_the_product_has_no_pull_towards_a_denoiser_that_does_not_look() -> None:
    """With D' = g x' and E D' = at, the mean gradient in g is 0; the published form's is 2 g Var(x')/K."""
    n, mean = 200_000, 0.7
    x = mean + stateless.normal(0, "pull", torch.arange(n), (2, 1, 1, 1), torch.float64).transpose(0, 1)

    def slope(form: str) -> tuple[float, float]:
        g = torch.ones(n, dtype=torch.float64, requires_grad=True)
        at = torch.full((n, 1, 1, 1), mean, dtype=torch.float64)
        penalty(at, g.reshape(1, -1, 1, 1, 1) * x, form).sum().backward()
        assert g.grad is not None
        return float(g.grad.mean()), float(g.grad.std()) / n**0.5

    value, stderr = slope("unbiased")
    assert abs(value) < 4 * stderr
    value, stderr = slope("paper")
    assert abs(value - 2 * 1.0 / 2) < 4 * stderr


def test_anchors_are_noisy_images_with_levels_uniform_in_the_logarithm() -> None:
    levels = torch.tensor([0.0] * 5 + [0.2] * 3 + [0.6] * 2, dtype=torch.float64)
    n = 20_000
    found = draw_anchors(7, torch.arange(n), levels, buffer=1.05, sigma_min=0.01, span=0.5)
    assert int(found.index.min()) == 5
    assert torch.bincount(found.index, minlength=10)[5:].float().div(n).sub(0.2).abs().max() < 4 * (0.16 / n) ** 0.5
    torch.testing.assert_close(found.start, 1.05 * levels[found.index], rtol=1e-12, atol=0)
    share = (found.sigma / 0.01).log() / (found.start / 0.01).log()
    gap = (found.sigma / found.lower).log() / 0.5
    for u in (share, gap):
        assert float(u.min()) > 0
        assert float(u.max()) < 1
        distance = (u.sort().values - torch.arange(n) / n).abs().max()
        assert float(distance) < 1.63 / n**0.5  # Kolmogorov at 1 %
    below = draw_anchors(7, torch.arange(9), torch.full((4,), 0.005).double(), buffer=1.0, sigma_min=0.01, span=0.5)
    torch.testing.assert_close(below.sigma, below.start)  # images cleaner than sigma_min: at their own level


def test_draws_of_anchors_do_not_depend_on_their_company() -> None:
    whole = draw_anchors(0, torch.arange(16), LEVELS, buffer=1.0, sigma_min=0.01, span=1.0)
    part = draw_anchors(0, torch.arange(9, 12), LEVELS, buffer=1.0, sigma_min=0.01, span=1.0)
    for name in ("index", "start", "sigma", "lower"):
        assert torch.equal(getattr(whole, name)[9:12], getattr(part, name))


def test_default_number_of_anchors_is_a_sixteenth_of_the_batch() -> None:
    assert [default_batch(b) for b in (1, 16, 17, 128, 512)] == [1, 1, 2, 8, 32]
