"""Posterior samples against laws whose posterior is known in closed form; randomness by image and number alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ambient_theory.shared.errors import DivergedError, UsageError
from ambient_train.diffusion.restore import (
    MAX_SAMPLES,
    QUANTILES,
    descent,
    interval_probability,
    keyed_noise,
    posterior_sample,
    restore,
)
from ambient_train.diffusion.sampling import heun

PRIOR = torch.tensor([[1.0, 0.5], [0.5, 0.4]]).double()
"""Covariance of two pixels with mean 0."""
ATOMS, SHARES = torch.tensor([[-0.5, 0.3], [0.4, -0.1]]).double(), torch.tensor([0.3, 0.7]).double()
"""Two images of two pixels, and how often each is."""
SIGMA_N, Y = 0.6, torch.tensor([0.2, 0.15]).double()


def flat(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1)


def gaussian(x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
    """E[x0 | x] = P (P + sigma^2)^-1 x for images [B, 1, 1, 2]."""
    noise = sigma.double().reshape(-1, 1, 1) ** 2 * torch.eye(2).double()
    return torch.linalg.solve(PRIOR + noise, flat(x)[..., None]).mT.matmul(PRIOR).reshape(x.shape)


def two_atoms(x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
    """E[x0 | x] = sum_a a P(a | x)."""
    distance = (flat(x)[:, None] - ATOMS).square().sum(-1)
    weight = torch.softmax(SHARES.log() - distance / (2 * sigma.double().reshape(-1, 1) ** 2), dim=1)
    return (weight @ ATOMS).reshape(x.shape)


def draws(denoise, n: int, steps: int = 18, seed: int = 0) -> np.ndarray:
    """n samples of the posterior of Y, [n, 2]."""
    found = restore(
        denoise,
        np.asarray(Y, np.float32).reshape(1, 1, 1, 2),
        np.array([SIGMA_N]),
        np.array([5]),
        samples=n,
        steps=steps,
        seed=seed,
        batch=n,
    )
    return found.samples.reshape(n, 2).astype(float)


def by_ode(denoise, n: int) -> np.ndarray:
    """What the probability-flow ODE makes of Y, as often as asked, [n, 2]."""
    levels = torch.cat([descent(torch.tensor([SIGMA_N]), 36, 0.002)[0], torch.zeros(1).double()])
    x = heun(lambda x, sigma: denoise(x, sigma.expand(len(x))), Y.expand(n, 2).reshape(n, 1, 1, 2), levels)
    return flat(x).numpy()


def exact_moments(steps: int) -> tuple[Tensor, Tensor]:
    """Mean [2] and covariance [2, 2] of the scheme's samples for the Gaussian, without any randomness.

    All is linear: each of the scheme's normal numbers is set to 1 on a row of its own, and a last row has Y alone.
    """
    components = [(i, kind, pixel) for i in range(steps - 1) for kind in (0, 1) for pixel in (0, 1)]
    y = torch.zeros(len(components) + 1, 1, 1, 2).double()
    y[-1] = Y
    levels = descent(torch.full((len(y),), SIGMA_N).double(), steps, 0.002)

    def noise(i: int) -> tuple[Tensor, Tensor]:
        both = torch.zeros(2, *y.shape).double()
        for row, (step, kind, pixel) in enumerate(components):
            if step == i:
                both[kind, row, 0, 0, pixel] = 1
        return both[0], both[1]

    out = flat(posterior_sample(gaussian, y, levels, noise))
    return out[-1], out[:-1].T @ out[:-1]


def closed_form() -> tuple[Tensor, Tensor]:
    """Mean and covariance of the Gaussian posterior: C = (P^-1 + sigma_n^-2)^-1, C y/sigma_n^2."""
    covariance = torch.linalg.inv(torch.linalg.inv(PRIOR) + torch.eye(2).double() / SIGMA_N**2)
    return covariance @ Y / SIGMA_N**2, covariance


def test_gaussian_samples_have_the_mean_and_nearly_the_covariance_of_the_posterior() -> None:
    mean, covariance = exact_moments(18)
    true_mean, true_covariance = closed_form()
    torch.testing.assert_close(mean, true_mean, rtol=1e-4, atol=1e-5)
    error = torch.linalg.norm(covariance - true_covariance) / torch.linalg.norm(true_covariance)
    assert 0 < float(error) < 0.015


def test_covariance_converges_with_more_than_second_order_over_the_usual_numbers_of_steps() -> None:
    def error(steps: int) -> float:
        return float(torch.linalg.norm(exact_moments(steps)[1] - closed_form()[1]))

    assert math.log2(error(12) / error(23)) > 2  # 11 and 22 intervals
    assert error(6) > 0.1 * float(torch.linalg.norm(closed_form()[1]))  # negative control: too few steps are seen


def gaussian_moments_hold(x: np.ndarray) -> bool:
    """Whether mean and covariance of samples are those of the posterior, within five standard errors.

    Standard errors of n normal draws: mean sqrt(C_ii/n), covariance sqrt((C_ii C_jj + C_ij^2)/n). The scheme's own
    error, known exactly, is added.
    """
    true_mean, true = (t.numpy() for t in closed_form())
    bias = np.abs(exact_moments(18)[1].numpy() - true)
    diagonal = np.diag(true)
    slack = 5 * np.sqrt((np.outer(diagonal, diagonal) + true**2) / len(x)) + bias
    close = np.abs(np.cov(x.T) - true) < slack
    return bool(np.all(np.abs(x.mean(0) - true_mean) < 5 * np.sqrt(diagonal / len(x))) and close.all())


def test_gaussian_posterior_is_sampled_and_the_ode_does_not() -> None:
    assert gaussian_moments_hold(draws(gaussian, 4000))
    assert not gaussian_moments_hold(by_ode(gaussian, 4000))  # one point: no variance, and not the mean either


def test_correlation_is_needed() -> None:  # negative control: right variances, pixels that know nothing of each other
    x = draws(gaussian, 4000)
    assert not gaussian_moments_hold(np.stack([x[:, 0], np.roll(x[:, 1], 1)], axis=1))


def atoms_hold(x: np.ndarray) -> bool:
    """Whether samples are the two atoms with their posterior weights.

    A share p of n draws has standard error sqrt(p (1 - p)/n); five of them, and .01 for the scheme at 18 levels. Mean,
    variance and correlation (exactly -1 or 1) of the pixels follow from the share alone.
    """
    weight = torch.softmax(SHARES.log() - (Y - ATOMS).square().sum(1) / (2 * SIGMA_N**2), dim=0).numpy()
    atoms = ATOMS.numpy()
    if np.abs(x[:, None] - atoms).max(-1).min(1).max() > 1e-3:
        return False
    first = np.abs(x - atoms[0]).max(1) < 1e-3
    tolerance = 5 * math.sqrt(weight[0] * weight[1] / len(x)) + 0.01
    mean, spread = weight @ atoms, weight[0] * weight[1] * np.outer(atoms[1] - atoms[0], atoms[1] - atoms[0])
    span = np.abs(atoms[1] - atoms[0])
    return bool(
        abs(first.mean() - weight[0]) < tolerance
        and np.all(np.abs(x.mean(0) - mean) < tolerance * span)
        and np.all(np.abs(np.cov(x.T) - spread) < tolerance * np.outer(span, span))
        and np.corrcoef(x.T)[0, 1] < -1 + 1e-6
    )


def test_two_atoms_come_as_often_as_their_posterior_says_and_the_ode_gives_one() -> None:
    assert atoms_hold(draws(two_atoms, 4000))
    assert len(np.unique(by_ode(two_atoms, 50), axis=0)) == 1
    with np.errstate(all="ignore"):
        assert not atoms_hold(by_ode(two_atoms, 4000))


def test_prior_samples_are_no_posterior_samples() -> None:  # negative control of the weights
    rng = np.random.default_rng(0)
    assert not atoms_hold(ATOMS.numpy()[rng.choice(2, 4000, p=SHARES.numpy())])


def several() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "images": rng.normal(size=(5, 1, 1, 2)).astype(np.float32),
        "sigma_n": np.array([0.2, 0.6, 0.2, 1.2, 0.05]),
        "ids": np.array([3, 11, 4, 2**40, 0]),
    }


@pytest.mark.parametrize("batch", [1, 4, 7, 1000])
def test_samples_of_an_image_are_bit_equal_in_any_batch_and_company(batch: int) -> None:
    given = several()
    whole = restore(two_atoms, **given, samples=3, steps=6, seed=7, batch=15)
    split = restore(two_atoms, **given, samples=3, steps=6, seed=7, batch=batch)
    alone = restore(two_atoms, **{k: v[3:4] for k, v in given.items()}, samples=3, steps=6, seed=7, batch=batch)
    backwards = restore(two_atoms, **{k: v[::-1].copy() for k, v in given.items()}, samples=3, steps=6, seed=7)
    assert np.array_equal(whole.samples, split.samples)
    assert np.array_equal(whole.mean, split.mean)
    assert np.array_equal(whole.samples[3], alone.samples[0])
    assert np.array_equal(whole.samples, backwards.samples[::-1])


def test_fewer_samples_are_the_first_of_more_and_another_seed_or_id_gives_others() -> None:
    given = several()
    more, fewer = (restore(gaussian, **given, samples=k, steps=6).samples for k in (5, 2))
    assert np.array_equal(more[:, :2], fewer)
    other_seed = restore(gaussian, **given, samples=2, steps=6, seed=1).samples
    other_ids = restore(gaussian, **{**given, "ids": given["ids"] + 1}, samples=2, steps=6).samples
    for other in (other_seed, other_ids):
        assert not np.isclose(other, fewer).any()
    assert not np.isclose(more[:, 0], more[:, 1]).any()


def test_numbers_of_steps_images_and_samples_are_independent() -> None:
    """4 x 1000 x 3 numbers: correlations between rows of different keys are within 5/sqrt(1000)."""
    ids, numbers = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])
    noise = keyed_noise(0, ids, numbers, (1, 1, 1000))
    rows = torch.cat([flat(z) for i in (0, 1) for z in noise(i)])
    correlation = torch.corrcoef(rows.double()) - torch.eye(len(rows)).double()
    assert correlation.abs().max() < 5 / math.sqrt(1000)


def test_levels_descend_from_each_images_own() -> None:
    levels = descent(torch.tensor([0.2, 1.2, 0.004], dtype=torch.float64), 9, 0.002)
    assert levels[:, 0].tolist() == [0.2, 1.2, 0.004]
    assert (levels.diff(dim=1) < 0).all()
    assert levels[:, -1].tolist() == pytest.approx([0.002, 0.002, 0.001])


def test_mean_is_the_denoiser_and_summaries_are_of_the_samples() -> None:
    given = several()
    found = restore(gaussian, **given, samples=19, steps=4)
    expected = gaussian(torch.from_numpy(given["images"]).double(), torch.from_numpy(given["sigma_n"]))
    np.testing.assert_allclose(found.mean, expected.numpy(), rtol=1e-6)
    np.testing.assert_allclose(found.sample_mean, found.samples.mean(1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.std, found.samples.std(1, ddof=1), rtol=1e-4)
    np.testing.assert_allclose(found.quantiles[0], found.samples.min(1), rtol=1e-6)
    np.testing.assert_allclose(found.quantiles[1], np.median(found.samples, axis=1), rtol=1e-6)
    np.testing.assert_allclose(found.quantiles[2], found.samples.max(1), rtol=1e-6)


@pytest.mark.parametrize(("samples", "probability"), [(2, 1 / 3), (9, 0.8), (19, 0.9), (39, 0.9), (99, 0.9)])
def test_a_further_draw_falls_into_the_interval_as_often_as_promised(samples: int, probability: float) -> None:
    """4000 uniform draws against their own intervals; standard error sqrt(p (1 - p)/4000), five of them."""
    assert interval_probability(samples) == pytest.approx(probability)
    rng = np.random.default_rng(samples)
    x, further = rng.random((4000, samples)), rng.random(4000)
    low, high = np.quantile(x, QUANTILES, axis=1, method="weibull")[[0, 2]]
    inside = ((low <= further) & (further <= high)).mean()
    assert abs(inside - probability) < 5 * math.sqrt(probability * (1 - probability) / 4000)
    plain = np.quantile(x, QUANTILES, axis=1)[[0, 2]]  # negative control: the usual quantiles are too narrow
    if samples < 99:
        narrow = ((plain[0] <= further) & (further <= plain[1])).mean()
        assert abs(narrow - 0.9) > 5 * math.sqrt(0.09 / 4000)


def test_bad_numbers_are_refused() -> None:
    for bad in (1, -1, MAX_SAMPLES + 1):
        with pytest.raises(UsageError, match="samples"):
            restore(gaussian, **several(), samples=bad)
    with pytest.raises(UsageError, match="steps"):
        restore(gaussian, **several(), samples=2, steps=1)
    with pytest.raises(UsageError, match="clean"):
        restore(gaussian, **{**several(), "sigma_n": np.zeros(5)}, samples=2)


def test_a_network_that_gives_nan_has_diverged() -> None:
    with pytest.raises(DivergedError):
        restore(lambda x, sigma, class_labels=None: x * math.nan, **several(), samples=0)
