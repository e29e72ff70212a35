"""Posteriors under noise that is not white, from denoisers of white noise, against closed forms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from ambient_theory.shared.errors import UsageError
from ambient_train.data.noise_models import added_noise
from ambient_train.data.noise_models._base import NoiseModel
from ambient_train.data.noise_models._gaussian import Mapped
from ambient_train.diffusion.restore import Posterior, restore, split_levels

SIDE, SIGMA_N, N = 4, 0.4, 4000
D = SIDE * SIDE
_PLACES = np.stack(np.mgrid[:SIDE, :SIDE], -1).reshape(-1, 2)
_SQUARED = ((_PLACES[:, None] - _PLACES[None]) ** 2).sum(-1)
PRIOR = 0.25 * np.exp(-_SQUARED / (2 * 1.5**2)) + 1e-4 * np.eye(D)
"""Covariance of smooth images, mean 0."""
_VALUES, _VECTORS = (torch.from_numpy(a) for a in np.linalg.eigh(PRIOR))
ATOMS = np.stack([0.2 * np.sin(_PLACES[:, 0] * k + k) for k in (1.0, 1.7)])
SHARES = np.array([0.35, 0.65])
_RELATIVE = np.exp(np.random.default_rng(0).normal(0, 1, (1, 1, SIDE, SIDE)))
MODELS: dict[str, NoiseModel] = {
    "correlated": added_noise("correlated:0.5", (1, SIDE, SIDE)),
    "map": Mapped(torch.from_numpy(_RELATIVE / _RELATIVE.mean()).float()),
}


def gaussian(x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
    """E[x0 | x0 + N(0, sigma^2)] of the smooth images."""
    weights = _VALUES / (_VALUES + sigma.double().reshape(-1, 1) ** 2)
    return (((x.reshape(len(x), D).double() @ _VECTORS) * weights) @ _VECTORS.T).reshape(x.shape)


def two_atoms(x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
    atoms = torch.from_numpy(ATOMS)
    distance = (x.reshape(len(x), 1, D).double() - atoms).square().sum(-1)
    weight = torch.softmax(torch.from_numpy(SHARES).log() - distance / (2 * sigma.double().reshape(-1, 1) ** 2), dim=1)
    return (weight @ atoms).reshape(x.shape)


def covariance(model: NoiseModel) -> np.ndarray:
    eye = torch.eye(D, dtype=torch.float64).reshape(D, 1, SIDE, SIDE)
    root = model.corrupt(torch.zeros_like(eye), torch.full((D,), SIGMA_N).double(), eye).reshape(D, D).numpy()
    return np.asarray(root.T @ root)


def posterior(
    denoise: Callable[..., Tensor], y: np.ndarray, told: NoiseModel, samples: int = N, sweeps: int = 12
) -> Posterior:
    image = y.astype(np.float32).reshape(1, 1, SIDE, SIDE)
    return restore(
        denoise, image, np.array([SIGMA_N]), np.array([7]), samples=samples, batch=samples, noise=told, sweeps=sweeps
    )


@pytest.mark.parametrize("name", list(MODELS))
def test_gaussian_posterior_has_the_closed_forms_mean_and_covariance(name: str) -> None:
    model, rng = MODELS[name], np.random.default_rng(1)
    s = covariance(model)
    y = rng.multivariate_normal(np.zeros(D), PRIOR + s)
    gain = PRIOR @ np.linalg.inv(PRIOR + s)
    mean, expected = gain @ y, PRIOR - gain @ PRIOR
    scale = np.sqrt(np.diag(expected))

    def off(found: Posterior) -> tuple[float, float, float]:
        """Root mean square error of the mean and of the better mean, in deviations; relative error of covariances."""
        samples = found.samples.reshape(N, D).astype(float)
        means = (samples.mean(0), found.mean.reshape(D))
        errors = (float(np.sqrt((((m - mean) / scale) ** 2).mean())) for m in means)
        return *errors, float(np.linalg.norm(np.cov(samples.T) - expected) / np.linalg.norm(expected))  # type: ignore[return-value]

    plain, better, spread = off(posterior(gaussian, y, model))
    # 4,000 draws leave .016 in a mean and about .04 in these covariances; the scheme's own error is within .04 and .02
    assert plain < 0.06
    assert better < 0.06
    assert spread < 0.09
    # negative control: told white noise of the same mean variance; how far it errs depends on y, which another LAPACK
    # draws otherwise
    y32 = y.astype(np.float32).reshape(1, 1, SIDE, SIDE)
    white = restore(gaussian, y32, np.array([SIGMA_N]), np.array([7]), samples=N, batch=N)
    wrong = off(white)
    assert wrong[0] > 2 * 0.06
    assert wrong[2] > 2 * 0.09


def test_two_atoms_come_as_often_as_their_posterior_says_after_many_sweeps() -> None:
    """Modes apart mix slowly: 12 sweeps have .46 here, 48 .36."""
    model, n = MODELS["correlated"], 600
    y = 0.45 * ATOMS[0] + 0.55 * ATOMS[1] + np.random.default_rng(6).normal(0, 0.3, D)
    inverse = np.linalg.inv(covariance(model))
    log_weight = np.log(SHARES) - 0.5 * np.array([(y - a) @ inverse @ (y - a) for a in ATOMS])
    expected = float(np.exp(log_weight[0] - np.logaddexp(*log_weight)))
    samples = posterior(two_atoms, y, model, n, sweeps=120).samples.reshape(n, D)
    nearest = ((samples[:, None] - ATOMS[None]) ** 2).sum(-1).argmin(1)
    assert float((nearest == 0).mean()) == pytest.approx(
        expected, abs=0.04 + 3 * (expected * (1 - expected) / n) ** 0.5
    )
    flat = np.log(SHARES) - 0.5 * ((y - ATOMS) ** 2).sum(1) / SIGMA_N**2
    white = float(np.exp(flat[0] - np.logaddexp(*flat)))
    assert abs(white - expected) > 0.4  # the control: white noise would say something else


def test_the_levels_fall_from_the_largest_to_the_smallest_eigenvalue() -> None:
    sigma_n = torch.tensor([0.4, 0.2], dtype=torch.float64)
    levels = split_levels(MODELS["map"], sigma_n, 12)
    torch.testing.assert_close(levels[:, 0], MODELS["map"].lowest_level(sigma_n))
    torch.testing.assert_close(levels[:, 5], MODELS["map"].highest_precision_level(sigma_n))
    assert (levels.diff(dim=1) <= 1e-12).all()
    steep = split_levels(MODELS["correlated"], sigma_n, 12)
    torch.testing.assert_close(steep[:, -1], steep[:, 0] / 10)


def test_samples_do_not_depend_on_the_batch_and_the_mean_needs_them() -> None:
    rng = np.random.default_rng(3)
    y = rng.normal(0, 0.6, (5, 1, SIDE, SIDE)).astype(np.float32)
    relative = torch.from_numpy(np.exp(rng.normal(0, 0.5, (5, 1, SIDE, SIDE))))
    maps = Mapped((relative / relative.mean(dim=(1, 2, 3), keepdim=True)).float())
    sigma, ids = np.full(5, 0.4), np.arange(5) + 3

    def found(batch: int, rows: slice = slice(None)) -> Posterior:
        noise = maps.at(torch.arange(5)[rows])
        return restore(
            gaussian, y[rows], sigma[rows], ids[rows], samples=3, steps=6, batch=batch, noise=noise, sweeps=4
        )

    whole = found(100)
    np.testing.assert_allclose(found(2).samples, whole.samples, atol=1e-6)
    np.testing.assert_allclose(found(100, slice(2, 4)).mean, whole.mean[2:4], atol=1e-6)
    with pytest.raises(UsageError, match="an average over samples"):
        restore(gaussian, y, sigma, ids, samples=0, noise=maps)
