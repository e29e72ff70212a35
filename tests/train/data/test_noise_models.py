"""What y says about x: the identities of every noise model, with their negative controls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train import stateless
from ambient_train.data.noise_models import TABLE, added_noise, help_for_added
from ambient_train.data.noise_models._base import NoiseModel
from ambient_train.data.noise_models._gaussian import Mapped
from ambient_train.data.noise_models._numbers import relative_spectrum, smoothed
from ambient_train.diffusion.losses import TABLE as LOSSES
from ambient_train.diffusion.losses._base import LossInputs

S = 0.5  # standard deviation of the Gaussian clean law of one pixel in these tests
WHITE = TABLE["white"].added("", (1, 1, 1))
SHAPE = (2, 6, 4)
PIXELS = 2 * 6 * 4


def maps(n: int = 1, channels: int = 2) -> NoiseModel:
    """A map for each of n images, or one for all: variances that differ 9 times."""
    relative = torch.from_numpy(np.random.default_rng(3).uniform(0.3, 2.7, (n, channels, *SHAPE[1:])))
    return Mapped((relative / relative.mean(dim=(1, 2, 3), keepdim=True)).float())


def every_model() -> dict[str, NoiseModel]:
    uneven = np.random.default_rng(4).uniform(0.2, 2, (2, 6, 3))
    uneven[:, 1:, ::2] += uneven[:, :0:-1, ::2].copy()  # real noise: the same at f and -f
    model = added_noise("correlated:0.5", SHAPE)
    return {
        "white": WHITE,
        "map": maps(),
        "smoothed": model,
        "spectrum": type(model)(torch.from_numpy(relative_spectrum(uneven, SHAPE[1:], "uneven"))[None], SHAPE[2]),  # type: ignore[call-arg]
    }


MODELS = every_model()


def constant(n: int, value: float) -> Tensor:
    return torch.full((n,), value, dtype=torch.float64)


def covariance(model: NoiseModel, sigma_n: float) -> Tensor:
    """S [d, d] of the noise that `corrupt` adds, from its columns S^(1/2) e_k."""
    eye = torch.eye(PIXELS, dtype=torch.float64).reshape(PIXELS, *SHAPE)
    root = model.corrupt(torch.zeros_like(eye), constant(PIXELS, sigma_n), eye).reshape(PIXELS, PIXELS)
    return root.T @ root


def draws(n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Three independent standard normal images [n, *SHAPE] float64."""
    z = stateless.normal(seed, "test", torch.arange(n), (3, *SHAPE), torch.float64)
    return z[:, 0], z[:, 1], z[:, 2]


@pytest.mark.parametrize("name", list(MODELS))
def test_noise_of_an_image_is_a_function_of_seed_and_id(name: str) -> None:
    model = MODELS[name]
    whole = model.noise(1, torch.tensor([5, 2**40, 0]), (2, 4, 4))
    assert torch.equal(model.noise(1, torch.tensor([2**40]), (2, 4, 4))[0], whole[1])
    assert not torch.equal(model.noise(2, torch.tensor([5]), (2, 4, 4))[0], whole[0])


@pytest.mark.parametrize("name", list(MODELS))
def test_clean_images_are_themselves(name: str) -> None:
    model, zero, sigma = MODELS[name], constant(4, 0.0), constant(4, 0.7)
    x, z, d = torch.randn(3, 4, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.corrupt(x, zero, z), x)
    assert torch.equal(model.lowest_level(zero), zero)
    torch.testing.assert_close(model.conditional_mean(d, x, sigma, zero), d, rtol=0, atol=0)
    torch.testing.assert_close(model.target(x, z, sigma, zero), x, rtol=0, atol=0)
    assert torch.equal(model.target_variance(sigma, zero), zero)
    error = model.squared_error(d, x, z, sigma, zero, constant(4, 3.0), clean=True)
    torch.testing.assert_close(error, 3 * (d - x).square().sum(dim=(1, 2, 3)))


@pytest.mark.parametrize("name", list(MODELS))
def test_strength_is_the_deviation_of_a_pixel_and_the_levels_are_the_roots_of_the_eigenvalues(name: str) -> None:
    model, s = MODELS[name], covariance(MODELS[name], 0.3)
    assert float(s.diagonal().mean()) == pytest.approx(0.09, rel=1e-6)
    eigenvalues = torch.linalg.eigvalsh(s)
    one = constant(1, 0.3)
    assert float(model.lowest_level(one)) == pytest.approx(float(eigenvalues[-1]) ** 0.5, rel=1e-6)
    assert float(model.highest_precision_level(one)) == pytest.approx(float(eigenvalues[0]) ** 0.5, rel=1e-6)
    assert model.white == (float(eigenvalues[-1] / eigenvalues[0]) < 1 + 1e-9)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("times", [1.05, 3.0])
def test_diffused_images_have_white_noise_of_the_diffusion_level(name: str, times: float) -> None:
    model, n = MODELS[name], 40_000
    level = times * float(model.lowest_level(constant(1, 0.3)))
    x, z, eps = draws(n, seed=5)
    sigma, sigma_n = constant(n, level), constant(n, 0.3)
    added = model.diffuse(model.corrupt(x, sigma_n, z), sigma, sigma_n, eps) - x
    found = torch.cov(added.reshape(n, -1).T) / level**2
    # a sample covariance of white noise scatters by 1/sqrt(n) off the diagonal and sqrt(2/n) on it
    assert float((found - torch.eye(PIXELS)).abs().max()) < 5.5 * (2 / n) ** 0.5
    alone = (model.diffuse(x, sigma, sigma_n, eps) - x).square().mean() / level**2  # the control: the added part alone
    assert abs(float(alone) - 1) > 8 * (2 / (n * PIXELS)) ** 0.5


@pytest.mark.parametrize("name", list(MODELS))
def test_target_is_the_clean_image_plus_noise_of_the_stated_variance_independent_of_x_t(name: str) -> None:
    model, n = MODELS[name], 40_000
    x, z, eps = draws(n, seed=3)
    sigma_n = constant(n, 0.3)
    sigma = 1.3 * model.lowest_level(sigma_n)
    y = model.corrupt(S * x, sigma_n, z)
    x_t = model.diffuse(y, sigma, sigma_n, eps)
    residual = model.target(y, x_t, sigma, sigma_n) - S * x
    variance = float(model.target_variance(sigma, sigma_n)[0])
    per_pixel = residual.reshape(n, -1).square().mean(1)
    assert abs(float(per_pixel.mean()) - variance) < 5 * float(per_pixel.std()) / n**0.5
    flat, noised = residual.reshape(n, -1), x_t.reshape(n, -1)
    scale = (flat.std(0)[:, None] * noised.std(0)[None, :]) / n**0.5
    assert float(((flat.T @ noised / n) / scale).abs().max()) < 5.5  # 2,304 normal numbers
    assert float(((flat.T @ (y - S * x).reshape(n, -1) / n) / scale).abs().max()) > 20  # it is y's own noise


@pytest.mark.parametrize("name", list(MODELS))
def test_conditional_mean_turns_the_mean_of_x_into_the_mean_of_y(name: str) -> None:
    """For x ~ N(0, K): D = K (K + sigma^2)^-1 x_t and E[y | x_t] = (K + S)(K + sigma^2)^-1 x_t."""
    model = MODELS[name]
    s = covariance(model, 0.3)
    factor = torch.randn(PIXELS, PIXELS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    prior = 0.25 * factor @ factor.T / PIXELS
    sigma = 1.1 * model.lowest_level(constant(5, 0.3))
    x_t = torch.randn(5, PIXELS, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gain = torch.linalg.inv(prior + float(sigma[0]) ** 2 * torch.eye(PIXELS, dtype=torch.float64))
    mean_x, mean_y = (x_t @ gain @ k for k in (prior, prior + s))
    found = model.conditional_mean(mean_x.reshape(5, *SHAPE), x_t.reshape(5, *SHAPE), sigma, constant(5, 0.3))
    torch.testing.assert_close(found.reshape(5, -1), mean_y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", list(MODELS))
def test_squared_errors_are_those_of_conditional_mean_and_target(name: str) -> None:
    model, sigma_n = MODELS[name], constant(4, 0.3)
    sigma = 1.2 * model.lowest_level(sigma_n)
    y, x_t, d = torch.randn(3, 4, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    at_y = (model.conditional_mean(d, x_t, sigma, sigma_n) - y).square().sum(dim=(1, 2, 3))
    at_x = (d - model.target(y, x_t, sigma, sigma_n)).square().sum(dim=(1, 2, 3))
    for clean, expected in ((False, at_y), (True, at_x)):
        found = model.squared_error(d, y, x_t, sigma, sigma_n, weight, clean=clean)
        torch.testing.assert_close(found, weight * expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("weight", ["x0", "y"])
def test_true_denoiser_minimises_the_loss_and_only_with_the_true_covariance(name: str, weight: str) -> None:
    """Linear denoisers of white Gaussian images, D = a x_t: the expected gradient is 0 at a = S^2/(S^2 + sigma^2)."""
    model, n = MODELS[name], 20_000
    x, z, eps = draws(n, seed=8)
    sigma_n = constant(n, 0.3)
    y = model.corrupt(S * x, sigma_n, z)

    def gradient(told: NoiseModel, strength: float) -> Tensor:
        strengths = constant(n, strength)
        sigma = torch.maximum(1.3 * told.lowest_level(strengths), 1.3 * model.lowest_level(sigma_n))
        x_t = told.diffuse(y, sigma, strengths, eps)
        best = S**2 / (S**2 + sigma**2)
        leaf = best.reshape(-1, 1, 1, 1).requires_grad_()
        inputs = LossInputs(denoised=leaf * x_t, y=y, x_t=x_t, sigma=sigma, sigma_n=strengths, noise=told)
        LOSSES[weight](inputs).sum().backward()
        assert leaf.grad is not None
        return leaf.grad.flatten()

    def far(g: Tensor) -> float:
        return abs(float(g.mean())) / (float(g.std()) / n**0.5)

    assert far(gradient(model, 0.3)) < 4.5
    assert far(gradient(model, 0.4)) > 8  # told another strength
    if name == "map":  # told another map: the pixels in another order; the mean over them hides it, one pixel does not
        other = Mapped(maps().at(torch.tensor([0])).relative.flip(2, 3))  # type: ignore[attr-defined]
        sigma = 1.3 * torch.maximum(model.lowest_level(sigma_n), other.lowest_level(sigma_n))
        for told, right in ((model, True), (other, False)):
            x_t = told.diffuse(y, sigma, sigma_n, eps)
            d = (S**2 / (S**2 + sigma**2)).reshape(-1, 1, 1, 1) * x_t
            # E[(D - target) x_t] is the gradient of each pixel's own coefficient
            product = ((d - told.target(y, x_t, sigma, sigma_n)) * x_t).reshape(n, -1)
            z_scores = product.mean(0).abs() / (product.std(0) / n**0.5)
            assert (float(z_scores.max()) < 5) == right


@pytest.mark.parametrize("name", list(MODELS))
def test_split_draws_what_lies_between_the_image_and_the_noisy_one(name: str) -> None:
    """z = x + N(0, r^2), y = z + N(0, S - r^2): drawn given x and y, z - x must be white of level r again."""
    model, n = MODELS[name], 40_000
    x, z, eps = draws(n, seed=6)
    sigma_n = constant(n, 0.3)
    level = 0.9 * model.highest_precision_level(sigma_n)
    y = model.corrupt(x, sigma_n, z)
    between = model.split(x, y, level, sigma_n, eps) - x
    found = torch.cov(between.reshape(n, -1).T) / float(level[0]) ** 2
    assert float((found - torch.eye(PIXELS)).abs().max()) < 5.5 * (2 / n) ** 0.5
    rest = torch.cov((y - x - between).reshape(n, -1).T)
    expected = covariance(model, 0.3) - float(level[0]) ** 2 * torch.eye(PIXELS)
    scale = torch.outer(expected.diagonal(), expected.diagonal()).clamp_min(1e-12).sqrt()
    assert float(((rest - expected) / scale).abs().max()) < 8 * (2 / n) ** 0.5
    if name == "map":  # the others' levels are too small against their noise to show it
        narrow = WHITE.split(x, y, level, sigma_n, eps) - x
        wrong = torch.cov(narrow.reshape(n, -1).T) / float(level[0]) ** 2
        assert float((wrong - torch.eye(PIXELS)).abs().max()) > 8 * (2 / n) ** 0.5


@pytest.mark.parametrize("name", MODELS)
def test_what_records_keep_of_the_covariance_says_from_where_on_and_how_much_a_target_scatters(name: str) -> None:
    model, sigma_n = MODELS[name], constant(1, 0.4)
    kept = model.eigenvalues()
    assert kept.white == model.white
    lowest = float(model.lowest_level(sigma_n))
    assert kept.lowest_level(0.4) == pytest.approx(lowest, rel=1e-6)
    assert sum(v * s for v, s in zip(kept.values, kept.shares, strict=True)) == pytest.approx(1, rel=1e-6)
    for ratio, within in ((1.05, 1e-2), (1.3, 2e-3), (5, 1e-3)):
        scatter = float(model.target_variance(constant(1, lowest * ratio), sigma_n))
        assert float(kept.excess_scatter(0.4, lowest * ratio)) == pytest.approx(scatter, rel=within)
    eigenvalues = torch.linalg.eigvalsh(covariance(model, 0.4))
    own = eigenvalues.numpy() / 0.4**2
    assert float(np.var(own)) == pytest.approx(
        sum(s * (v - 1) ** 2 for v, s in zip(kept.values, kept.shares, strict=True)), rel=0.02, abs=1e-6
    )


def test_many_maps_are_looked_at_in_part_and_their_strongest_pixel_is_kept() -> None:
    model = maps(1000)
    model.relative[777, 0, 0, 0] = 9.0  # type: ignore[attr-defined]
    assert model.eigenvalues().values[-1] == pytest.approx(9.0, rel=0.01)


def test_a_flat_map_and_a_flat_spectrum_are_white_noise() -> None:
    flat = {
        "map": Mapped(torch.ones(1, 1, *SHAPE[1:])),
        "spectrum": type(MODELS["smoothed"])(torch.ones(1, 1, 6, 3), 4),  # type: ignore[call-arg]
    }
    x, z, eps = (t[:8].float() for t in draws(8))
    sigma_n, sigma, weight = constant(8, 0.3), constant(8, 0.5), constant(8, 2.0)
    y = WHITE.corrupt(x, sigma_n, z)
    for model in flat.values():
        torch.testing.assert_close(model.corrupt(x, sigma_n, z), y)
        x_t = model.diffuse(y, sigma, sigma_n, eps)
        torch.testing.assert_close(x_t, WHITE.diffuse(y, sigma, sigma_n, eps))
        for clean in (False, True):
            args = (0.5 * x_t, y, x_t, sigma, sigma_n, weight)
            torch.testing.assert_close(
                model.squared_error(*args, clean=clean), WHITE.squared_error(*args, clean=clean), rtol=1e-5, atol=1e-5
            )


def test_white_noise_is_what_it_was_bit_for_bit() -> None:
    """The losses before there were other kinds, written out."""
    y, x_t, d = torch.randn(3, 6, *SHAPE, generator=torch.Generator().manual_seed(7))
    sigma = torch.tensor([0.31, 0.4, 0.7, 1.0, 5.0, 80.0], dtype=torch.float64)
    sigma_n = torch.tensor([0.3, 0.0, 0.6, 0.2, 0.0, 1.2], dtype=torch.float64)
    rho = (sigma_n / sigma) ** 2
    image = (-1, 1, 1, 1)
    mean = (1 - rho).reshape(image).float() * d + rho.reshape(image).float() * x_t
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    error = (mean - y).square().sum(dim=(1, 2, 3))
    inputs = LossInputs(denoised=d, y=y, x_t=x_t, sigma=sigma, sigma_n=sigma_n, noise=WHITE)
    assert torch.equal(LOSSES["y"](inputs), weight.float() * error)
    assert torch.equal(LOSSES["x0"](inputs), (weight / (1 - rho) ** 2).float() * error)
    z = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(8))
    assert torch.equal(WHITE.corrupt(y, sigma_n, z), y + sigma_n.reshape(image).float() * z)
    scale = (sigma**2 - sigma_n**2).clamp_min(0).sqrt()
    assert torch.equal(WHITE.diffuse(y, sigma, sigma_n, z), y + scale.reshape(image).float() * z)


def test_smoothed_noise_has_the_stated_correlations() -> None:
    """White noise after a Gaussian of w pixels: correlation exp(-d^2/(4 w^2)) at distance d."""
    w, side = 0.8, 32
    power = smoothed(w, (side, side)).astype(np.float64)
    covariance = np.fft.irfft2(power, s=(side, side))[0]
    for d in range(5):
        # sampled on pixels and cut at half a cycle a pixel: 1e-3 at this width
        assert covariance[0, d] / covariance[0, 0] == pytest.approx(np.exp(-(d**2) / (4 * w**2)), abs=2e-3)
    assert covariance[0, 0] == pytest.approx(1, rel=1e-6)


def test_one_map_for_each_image_is_used_for_that_image() -> None:
    model = maps(3)
    z = torch.ones(2, *SHAPE)
    noisy = model.at(torch.tensor([2, 0])).corrupt(torch.zeros(2, *SHAPE), constant(2, 0.5), z)
    expected = 0.5 * model.relative[[2, 0]].sqrt()  # type: ignore[attr-defined]
    torch.testing.assert_close(noisy, expected)


def test_what_cannot_be_a_kind_of_noise_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.npy"
    np.save(wrong, np.ones((5, 5)))
    zero, one_sided = tmp_path / "zero.npy", tmp_path / "one.npy"
    np.save(zero, np.zeros((8, 8)))
    np.save(one_sided, np.arange(64.0).reshape(8, 8))
    holes = tmp_path / "holes.npy"
    np.save(holes, np.where(np.eye(8) > 0, 0.0, 1.0))
    for spec, kind, text in (
        ("pink", UsageError, "noise 'pink' is not one of correlated, poisson-gaussian, variance-map, white"),
        ("white:3", UsageError, "no parameters"),
        ("correlated", UsageError, "needs parameters"),
        ("correlated:0", UsageError, "above 0 and below a quarter of the image"),
        ("correlated:2", UsageError, "above 0 and below a quarter of the image"),
        ("correlated:nan", UsageError, "above 0"),
        ("variance-map", UsageError, "needs a map"),
        (f"variance-map:{wrong}", UsageError, r"a map of shape \(5, 5\) for images of \(1, 8, 8\)"),
        (f"variance-map:{zero}", UsageError, "0 everywhere"),
        (f"variance-map:{holes}", DataError, "a missing pixel has no noise level"),
        (f"variance-map:{tmp_path / 'none.npy'}", DataError, "no such file"),
        (f"correlated:{wrong}", DataError, r"must be \[8, 5\]"),
        (f"correlated:{zero}", DataError, "not 0 everywhere"),
        (f"correlated:{one_sided}", DataError, "the same at f and -f"),
    ):
        with pytest.raises(kind, match=text):
            added_noise(spec, (1, 8, 8))
    assert "correlated:" in help_for_added()
    assert "white" in help_for_added()
