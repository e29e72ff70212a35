"""Who is noisy, and with which noise: fixed per image, nested over budgets, independent across images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ambient_theory.shared.errors import UsageError
from ambient_train.data.counts import counts
from ambient_train.data.images import ImageSet
from ambient_train.data.mixture import TrainingSet, corrupt


def images(n: int = 200, side: int = 4, sigma: np.ndarray | None = None) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 1, side, side)).astype(np.uint8)
    return ImageSet("test", pixels, None, np.arange(n, dtype=np.int64) + 1000, sigma)


def noise_of(data: TrainingSet) -> dict[int, np.ndarray]:
    """Image id -> the noise in it."""
    every = torch.arange(len(data))
    difference = data.batch(every).numpy() - data.source.pixels()
    return dict(zip(data.source.ids.tolist(), difference, strict=True))


def ids_with(data: TrainingSet, noisy: bool) -> set[int]:
    chosen = (data.sigma_n > 0).numpy() == noisy
    return set(data.source.ids[chosen].tolist())


def test_each_image_has_one_noise_for_ever() -> None:
    first = corrupt(images(), n_clean=20, n_noisy=180, sigma_n=0.3, seed=1)
    again = corrupt(images(), n_clean=20, n_noisy=180, sigma_n=0.3, seed=1)
    scattered = torch.tensor([7, 150, 7, 3])
    assert torch.equal(first.batch(scattered), again.batch(torch.arange(200))[scattered])
    other_share = corrupt(images(), n_clean=100, n_noisy=100, sigma_n=0.6, seed=1)
    a, b = noise_of(first), noise_of(other_share)
    for image in ids_with(other_share, True):
        np.testing.assert_allclose(2 * a[image], b[image], atol=1e-6)
    other_seed = noise_of(corrupt(images(), n_clean=0, n_noisy=200, sigma_n=0.3, seed=2))
    assert not np.allclose(next(iter(a.values())), other_seed[next(iter(a))])


def test_noise_is_white_gaussian_and_never_clipped() -> None:
    data = corrupt(images(2000), n_clean=0, n_noisy=2000, sigma_n=0.5, seed=0)
    z = np.stack(list(noise_of(data).values())).reshape(2000, 16) / 0.5
    n = z.size
    assert abs(z.mean()) < 4 / np.sqrt(n)
    assert abs(z.std() - 1) < 4 / np.sqrt(2 * n)
    assert abs((z[:-1] * z[1:]).mean()) < 4 / np.sqrt(n)  # images are independent
    assert abs((z[:, :-1] * z[:, 1:]).mean()) < 4 / np.sqrt(n)  # so are pixels
    assert np.abs(data.batch(torch.arange(2000)).numpy()).max() > 1.5


def test_subsets_are_nested_across_budgets_and_disjoint() -> None:
    small = corrupt(images(), n_clean=10, n_noisy=50, sigma_n=0.2, seed=3)
    large = corrupt(images(), n_clean=40, n_noisy=160, sigma_n=0.6, seed=3)
    assert ids_with(small, False) < ids_with(large, False)
    assert ids_with(small, True) < ids_with(large, True)
    assert not ids_with(large, True) & ids_with(large, False)
    clean_only = corrupt(images(), n_clean=10, n_noisy=0, sigma_n=0.0, seed=3)
    assert ids_with(clean_only, False) == ids_with(small, False)


def test_levels_are_sorted_and_counts_are_exact() -> None:
    data = corrupt(images(), n_clean=30, n_noisy=70, sigma_n=0.2, seed=0)
    assert (data.n_clean, data.n_noisy, len(data)) == (30, 70, 100)
    assert (data.sigma_n.diff() >= 0).all()
    assert len(data.clean_images()) == 30


def test_images_that_came_with_noise_are_never_noised_again() -> None:
    given = np.where(np.arange(200) % 4 == 0, 0.3, 0.0).astype(np.float32)
    data = corrupt(images(sigma=given), n_clean=100, n_noisy=80, sigma_n=0.2, seed=0)
    noise = noise_of(data)
    already = {i + 1000 for i in range(0, 200, 4)}
    assert already < ids_with(data, True)
    for image in already:
        assert not noise[image].any()
    added = ids_with(data, True) - already
    assert len(added) == 30
    assert all(noise[image].any() for image in added)
    levels = dict(zip(data.source.ids.tolist(), data.sigma_n.tolist(), strict=True))
    assert {round(levels[i], 6) for i in already} == {0.3}
    assert {round(levels[i], 6) for i in added} == {0.2}


def test_images_made_noisy_beside_those_with_maps_get_their_maps_in_turn() -> None:
    n, side, level = 400, 8, 0.2
    rng = np.random.default_rng(0)
    patterns = np.ones((n, 1, side, side), np.float32)
    steep = np.repeat([[3.0, 1.0]], side, 0).repeat(side // 2, 1)
    for k, one in ((0, steep), (1, steep[:, ::-1])):  # two maps, one the mirror image of the other
        patterns[k:200:2] = one / np.sqrt((one**2).mean())
    came = np.where(np.arange(n) < 200, np.float32(level), np.float32(0))
    noise = level * patterns * rng.standard_normal(patterns.shape)
    source = ImageSet(
        "set", (noise * (came > 0)[:, None, None, None]).astype(np.float32), None, np.arange(n), came, pattern=patterns
    )
    data = corrupt(source, n_clean=50, n_noisy=350, sigma_n=level, seed=0)
    added = data.added.numpy()
    assert added.sum() == 150
    relative = data.noise.describe()["pattern"]
    assert [int((np.abs(relative[added] - one) < 1e-6).all((1, 2, 3)).sum()) for one in patterns[:2]] == [75, 75]
    fresh = data.batch(torch.arange(n)).numpy()[added] / (level * relative[added])
    # all pixels of unit deviation, the loud and the quiet ones: relative error 1/sqrt(2 n) each
    for loud in (True, False):
        of_side = fresh[(relative[added] > 1) == loud]
        assert abs(of_side.std() - 1) < 4.5 / np.sqrt(2 * of_side.size)
    assert np.array_equal(relative[data.sigma_n == 0], np.ones((50, 1, side, side), np.float32))
    fewer = corrupt(source, n_clean=50, n_noisy=280, sigma_n=level, seed=0)
    kept = {int(i): m for i, m in zip(data.source.ids, relative, strict=True)}
    for i, m in zip(fewer.source.ids, fewer.noise.describe()["pattern"], strict=True):
        assert np.array_equal(m, kept[int(i)])


def test_shares_become_counts_as_in_the_paper() -> None:
    assert counts(60_000, keep=1.0, corruption=0.9) == (6_000, 54_000)
    assert counts(60_000, keep=0.1, corruption=0.0) == (6_000, 0)
    assert counts(1_442, keep=1.0, corruption=1.0) == (0, 1_442)


@pytest.mark.parametrize(
    ("keep", "corruption"), [(0.0, 0.0), (-1.0, 0.0), (1.5, 0.0), (1.0, 1.1), (1.0, -0.1), (float("nan"), 0.0)]
)
def test_impossible_shares_are_refused(keep: float, corruption: float) -> None:
    with pytest.raises(UsageError):
        counts(100, keep=keep, corruption=corruption)


@pytest.mark.parametrize(
    ("n_clean", "n_noisy", "sigma"),
    [(0, 0, 0.2), (150, 100, 0.2), (-1, 5, 0.2), (10, 10, -0.2), (10, 10, float("nan")), (10, 10, float("inf"))],
)
def test_impossible_mixtures_are_refused(n_clean: int, n_noisy: int, sigma: float) -> None:
    with pytest.raises(UsageError):
        corrupt(images(), n_clean=n_clean, n_noisy=n_noisy, sigma_n=sigma, seed=0)
