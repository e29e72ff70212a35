"""Held-out denoising error against closed forms: its value, its pairing, its integral."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.evaluation.denoising import (
    DenoisingError,
    denoising_error,
    excess_nats,
    halves,
    log_levels,
    paired_difference,
    quadrature,
    quick_part,
    total_nats,
)

TAU = 0.5
N, SHAPE = 400, (1, 4, 4)
LEVELS = log_levels(0.02, 20.0)
IDS = np.arange(N, dtype=np.int64) + 7
IMAGES = (TAU * np.random.default_rng(0).normal(size=(N, *SHAPE))).astype(np.float32)


def gaussian(tau: float = TAU, bias: float = 0.0):
    """E[x0 | x] of N(0, tau^2) pixels, moved by `bias` in every pixel."""

    def denoise(x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        return tau**2 / (tau**2 + sigma.double() ** 2) * x.double() + bias

    return denoise


def measure(denoise=None, images=IMAGES, ids=IDS, levels=LEVELS, **options) -> DenoisingError:
    return denoising_error(denoise or gaussian(), images, ids, levels, **{"seed": 3, **options})


def expected(tau: float, levels=LEVELS) -> np.ndarray:
    """Error of the denoiser of N(0, tau^2) on data of N(0, TAU^2): (s^4 TAU^2 + tau^4 s^2)/(tau^2 + s^2)^2."""
    s2 = np.asarray(levels) ** 2
    return (s2**2 * TAU**2 + tau**4 * s2) / (tau**2 + s2) ** 2


def test_exact_denoiser_has_the_posterior_variance_of_a_gaussian() -> None:
    found = measure()
    s2 = np.asarray(LEVELS) ** 2
    np.testing.assert_allclose(expected(TAU), TAU**2 * s2 / (TAU**2 + s2))  # the well-known form
    assert (np.abs(found.mean - expected(TAU)) < 4 * np.asarray(found.stderr)).all()
    assert (found.n, found.dim, found.levels, found.seed) == (N, 16, LEVELS, 3)
    # an image's error is a mean of 16 squares of Gaussians: relative standard deviation sqrt(2/16), kurtosis 3 + 12/16
    tolerance = 4 * math.sqrt((2 + 12 / 16) / (4 * N))
    np.testing.assert_allclose(np.asarray(found.stderr) / expected(TAU), math.sqrt(2 / 16 / N), rtol=tolerance)
    wrong = measure(gaussian(0.8))
    assert (np.abs(wrong.mean - expected(TAU)) > 4 * np.asarray(wrong.stderr)).any()  # the test can tell


def test_paired_difference_finds_a_bias_that_the_errors_alone_cannot_show() -> None:
    exact, biased, same = measure(), measure(gaussian(bias=0.02)), measure(gaussian(TAU * (1 + 1e-9)))
    k = 10  # a level near the scale of the data
    alone = (biased.mean[k] - exact.mean[k]) / math.hypot(biased.stderr[k], exact.stderr[k])
    assert abs(alone) < 2
    difference = paired_difference(biased, exact)
    assert difference.mean[0] > 4 * difference.stderr[0]
    assert difference.mean[0] == pytest.approx(0.02**2, abs=4 * difference.stderr[0])
    assert np.abs(paired_difference(same, exact).mean).max() < 1e-8
    reverse = paired_difference(exact, biased)
    np.testing.assert_allclose(reverse.mean, -np.asarray(difference.mean))
    assert reverse.stderr == difference.stderr


def test_noise_is_common_to_all_models_and_depends_on_seed_image_and_level() -> None:
    first, again, other = measure(), measure(), measure(seed=4)
    assert np.array_equal(first.per_image, again.per_image)
    assert not np.isclose(first.per_image, other.per_image).any(axis=1).all()
    seen: dict[float, Tensor] = {}

    def spy(x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        seen.setdefault(float(sigma), x.clone())
        return x

    measure(spy, batch=N)
    clean = torch.from_numpy(IMAGES)
    eps = [(x - clean) / level for level, x in seen.items()]
    for noise in eps:
        assert abs(float(noise.mean())) < 4 / math.sqrt(noise.numel())
        assert abs(float(noise.std()) - 1) < 4 / math.sqrt(2 * noise.numel())
    # float32 spoils the recovered noise a little at the smallest level; correlations are at most 4 standard errors
    flat = torch.stack([noise.flatten() for noise in eps])
    correlations = torch.corrcoef(flat) - torch.eye(len(eps))
    assert float(correlations.abs().max()) < 4.5 / math.sqrt(flat.shape[1])


def test_error_of_an_image_does_not_depend_on_batches_or_order() -> None:
    whole = measure(batch=N)
    assert np.array_equal(whole.per_image, measure(batch=7).per_image)
    order = np.random.default_rng(1).permutation(N)
    moved = measure(images=IMAGES[order], ids=IDS[order])
    assert np.array_equal(moved.per_image, whole.per_image[order])
    assert np.array_equal(measure(images=IMAGES[:50], ids=IDS[:50]).per_image, whole.per_image[:50])
    assert np.array_equal(whole.part(np.arange(50)).per_image, whole.per_image[:50])


def test_bytes_and_floats_of_the_same_images_have_the_same_error() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (20, 1, 4, 4)).astype(np.uint8)
    floats = (pixels / 127.5 - 1).astype(np.float32)
    a, b = (measure(images=x, ids=IDS[:20]) for x in (pixels, floats))
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-5)


def test_labels_reach_the_network_with_their_images() -> None:
    labels = torch.nn.functional.one_hot(torch.arange(N) % 3, 3).float()

    def denoise(x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        assert class_labels is not None
        return class_labels.argmax(1).reshape(-1, 1, 1, 1) + torch.zeros_like(x)

    flat = np.zeros((N, *SHAPE), np.float32)
    found = measure(denoise, images=flat, class_labels=labels, batch=33)
    np.testing.assert_allclose(found.per_image[:, 0], (np.arange(N) % 3) ** 2)


def test_trapezoidal_rule_integrates_gaussian_errors_exactly_enough() -> None:
    """int tau^2 s^2/(tau^2 + s^2) s^-3 ds = ln(s^2/(s^2 + tau^2))/2."""
    levels = log_levels(0.01, 20.0)
    s = np.asarray(levels)
    for tau in (0.2, 0.5, 1.0):
        value = float(quadrature(levels) @ (tau**2 * s**2 / (tau**2 + s**2)))
        exact = 0.5 * math.log((20**2 / (20**2 + tau**2)) / (0.01**2 / (0.01**2 + tau**2)))
        assert value == pytest.approx(exact, rel=5e-4)
        crude = float(quadrature(levels[::5]) @ (tau**2 * s[::5] ** 2 / (tau**2 + s[::5] ** 2)))
        assert crude != pytest.approx(exact, rel=5e-4)  # a fifth of the levels is not enough


@pytest.mark.parametrize("tau", [0.4, 0.6, 1.0])
def test_excess_nats_of_a_wrong_gaussian_are_its_kullback_leibler_divergence(tau: float) -> None:
    levels = log_levels(0.005, 200.0, 24)
    wrong, exact = measure(gaussian(tau), levels=levels), measure(levels=levels)
    excess = excess_nats(wrong, exact)
    divergence = 16 * 0.5 * (TAU**2 / tau**2 - 1 - math.log(TAU**2 / tau**2))
    formula = 16 * float(quadrature(levels) @ (expected(tau, levels) - expected(TAU, levels)))
    assert formula == pytest.approx(divergence, rel=2e-3)
    assert abs(excess.value - divergence) < 4 * excess.stderr + 2e-3 * divergence
    assert excess.value > 4 * excess.stderr
    assert excess.bits_per_dim == pytest.approx(excess.value / 16 / math.log(2))
    assert excess_nats(exact, wrong).value == pytest.approx(-excess.value)
    assert excess.stderr < total_nats(wrong).stderr
    assert excess.value == pytest.approx(total_nats(wrong).value - total_nats(exact).value, rel=1e-5)


def test_a_result_is_json_with_its_levels() -> None:
    found = measure()
    back = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert back["levels"] == list(LEVELS)
    assert back["mean"] == list(found.mean)
    assert next(iter(back)) == "schema"
    assert json.loads(json.dumps(excess_nats(found, found).to_dict()))["value"] == 0


def test_quick_part_and_halves_are_fixed_nested_and_disjoint() -> None:
    part = quick_part(IDS, 0, 100)
    assert len(part) == 100
    assert set(quick_part(IDS, 0, 30)) < set(part)
    assert not np.array_equal(part, quick_part(IDS, 1, 100))
    moved = IDS[::-1].copy()
    assert set(moved[quick_part(moved, 0, 100)]) == set(IDS[part])
    assert len(quick_part(IDS, 0, 10_000)) == N
    a, b = halves(IDS, 0)
    assert sorted([*a, *b]) == list(range(N))


def test_unusable_requests_are_refused() -> None:
    with pytest.raises(UsageError, match="ascending"):
        measure(levels=(0.5, 0.2))
    with pytest.raises(UsageError, match="0 < min < max"):
        log_levels(2.0, 1.0)
    with pytest.raises(DataError, match="at least 2 images"):
        measure(images=IMAGES[:1], ids=IDS[:1])
    with pytest.raises(DataError, match="diverged"):
        measure(lambda x, s, class_labels: x * math.nan)
    found = measure()
    with pytest.raises(UsageError, match="different seed"):
        paired_difference(found, measure(seed=9))
    with pytest.raises(UsageError, match="different images"):
        paired_difference(found, measure(images=IMAGES + np.float32(0.1)))
    with pytest.raises(UsageError, match="single images"):
        excess_nats(found, replace(found, per_image=None))
