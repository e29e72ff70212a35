"""Noise that is estimated: its level by exact identities and by known noise, its whiteness, its gain, and the table."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from count_noise import cells
from data_files import png, write_folder
from experiment_script import experiment
from invoke import ambient
from number_files import counts, tiff
from scipy.ndimage import gaussian_filter
from scipy.optimize import brentq
from scipy.stats import binom, chi2

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.estimation import level as level_module
from ambient_train.data.estimation.gain import Gain, gain_of
from ambient_train.data.estimation.level import (
    CLEAN,
    Candidate,
    _of_whole_images,
    _orders,
    level_of_set,
    levels_of_images,
    way_of_images,
)
from ambient_train.data.estimation.options import NoiseOptions
from ambient_train.data.estimation.patches import basis, coefficients, fine, lags
from ambient_train.data.estimation.report import clipped_share, noise_of
from ambient_train.data.estimation.roots import (
    BELOW,
    WIDER,
    influence,
    least_patches,
    null,
    remainder,
    smallest_root,
    texture,
)
from ambient_train.data.estimation.whiteness import whiteness
from ambient_train.data.load import ImageSet, load_images
from ambient_train.data.prepare.check import check

SIGMAS = (0.05, 0.1, 0.2, 0.5, 1.0)
SETS = {"digits": 1797, "photos32": 200, "fashion": 200}


@functools.cache
def every_image(name: str) -> ImageSet:
    return load_images(name, split="all")


def images_of(name: str, count: int, seed: int) -> np.ndarray:
    try:
        every = every_image(name)
    except DataError:
        pytest.skip(f"{name} is not installed")
    chosen = np.random.default_rng(seed).permutation(len(every))[:count]
    return every.pixels(np.sort(chosen)).astype(np.float64)


correlated = experiment("estimation").correlated


def smooth(count: int = 60, side: int = 32, seed: int = 0) -> np.ndarray:
    """Images [count, 1, side, side] of one broad bump each."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    a, b = rng.uniform(0.2, 0.8, (2, count, 1, 1))
    return (1.4 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 0.1) - 0.8)[:, None]


@pytest.mark.parametrize(("channels", "side"), [(1, 2), (1, 6), (3, 4)])
def test_the_basis_is_orthonormal_and_keeps_the_energy_of_a_patch(channels: int, side: int) -> None:
    b = basis(channels, side).reshape(channels * side**2, -1)
    np.testing.assert_allclose(b @ b.T, np.eye(len(b)), atol=1e-12)
    x = np.random.default_rng(0).standard_normal((2, channels, side, side))
    values, ends = coefficients(x, side)
    np.testing.assert_allclose((values**2).sum(-1)[:, 0], (x**2).sum((1, 2, 3)))
    np.testing.assert_allclose(ends[:, 0], np.stack([x.min((1, 2, 3)), x.max((1, 2, 3))], -1))


def test_correlated_noise_has_the_spectrum_of_its_lags() -> None:
    """E[(b_k . n)^2] = 1 + A_k . rho is exact where nothing beyond the neighbours is correlated."""
    side, rho = 4, (0.3, -0.2)
    i, j = np.mgrid[:side, :side].reshape(2, -1)
    dy, dx = np.abs(i[:, None] - i), np.abs(j[:, None] - j)
    covariance = (dy + dx == 0) + rho[0] * ((dy == 1) & (dx == 0)) + rho[1] * ((dy == 0) & (dx == 1))
    b = basis(1, side).reshape(side**2, -1)
    np.testing.assert_allclose(((b @ covariance) * b).sum(1), 1 + lags(1, side) @ np.array(rho), atol=1e-12)


@pytest.mark.parametrize("m", [3, 4, 15, 40])
def test_the_root_is_the_variance_of_noise_alone_and_of_noise_in_a_fifth_of_the_patches(m: int) -> None:
    n, rng = 40_000, np.random.default_rng(0)
    v = 0.25 * chi2.rvs(m, size=n, random_state=rng) / m
    cut, mean = null(m)
    assert np.mean(v[v < cut * 0.25]) == pytest.approx(mean * 0.25, rel=4 / np.sqrt(n))
    for share in (1.0, 0.2):
        texture = v + (rng.random(n) > share) * rng.uniform(1, 20, n)
        s2, found = smallest_root(texture, m, least_patches(n))
        # relative error of a truncated mean: about 2/sqrt(m n share), and 2 for the slope of the equation
        assert s2 == pytest.approx(0.25, rel=12 / np.sqrt(m * n * share))
        assert found == pytest.approx(share, rel=12 / np.sqrt(n * share) + 0.05)
    s2, _ = smallest_root(v + rng.uniform(1, 20, n), m, least_patches(n))  # control: texture everywhere
    assert not s2 < 1
    assert smallest_root(np.zeros(100), m, 30) == (0.0, 1.0)


@pytest.mark.parametrize("m", [3, 9, 40])
@pytest.mark.parametrize("below", [BELOW, WIDER])
def test_little_texture_moves_a_root_by_its_influence(m: int, below: float) -> None:
    """Exact for a share e -> 0: the root of the mixed law, from the laws of its parts; second order is e of it."""
    cut, mean = null(m, below)

    def excess(s2: float, t: float) -> float:  # E (v - k s^2) 1[v < c s^2], v = (1 + t) chi^2_m/m
        a = cut * s2 * m / (1 + t)
        return float((1 + t) * chi2.cdf(a, m + 2) - mean * s2 * chi2.cdf(a, m))

    e = 1e-5
    for t in (0.01, 0.3, 3.0, 30.0):
        s2 = brentq(lambda s, t=t: (1 - e) * excess(s, 0) + e * excess(s, t), 0.9, 1.1, xtol=1e-15)
        assert (s2 - 1) / e == pytest.approx(float(influence(np.array(t), m, below)), rel=0.01, abs=1e-6)
    assert float(influence(np.array(1e-5), m, below)) == pytest.approx(1e-5, rel=1e-3)
    assert float(influence(np.array(1e6), m, below)) < 1e-3


@pytest.mark.parametrize("m", [3, 9, 40])
def test_texture_of_all_strengths_that_a_root_keeps_is_told_by_the_wider_one(m: int) -> None:
    """Patches whose texture has density 1/t, 30 draws: what the root is too large by, to 4 standard errors of both."""
    rng, n, s2 = np.random.default_rng(m), 100_000, 0.04
    raised, told, silent, wide = [], [], [], []
    for _ in range(30):
        noise = s2 * rng.chisquare(m, n) / m
        v = noise * (1 + np.where(rng.random(n) < 0.3, np.exp(rng.uniform(-10, 10, n)), 0))
        root, _ = smallest_root(v, m, least_patches(n))
        raised.append(root - s2)
        told.append(texture(v, m, root))
        wide.append(smallest_root(v, m, least_patches(n), WIDER)[0] - s2)
        silent.append(texture(noise, m, smallest_root(noise, m, least_patches(n))[0]))
    error = np.std(np.array(raised) - told) / np.sqrt(30)
    assert abs(np.mean(raised) - np.mean(told)) < 4 * error
    assert np.mean(told) > (2 if m == 3 else 4) * np.std(told) / np.sqrt(30)
    assert abs(np.mean(silent)) < 4 * np.std(silent) / np.sqrt(30)  # control: none is told where there is none
    assert np.mean(wide) / np.mean(raised) == pytest.approx(1 + 1 / remainder(m), rel=0.4)


def test_patches_that_are_far_from_noise_are_no_texture_that_a_root_keeps() -> None:
    """Exact: what lies beyond the wider cut does not enter, however much it is."""
    v = 0.04 * chi2.rvs(9, size=4000, random_state=np.random.default_rng(0)) / 9
    root, _ = smallest_root(v, 9, 30)
    beyond = np.concatenate([v, np.full(8000, 1.0)])
    assert smallest_root(beyond, 9, 30)[0] == pytest.approx(root)
    assert texture(beyond, 9, root) == pytest.approx(texture(v, 9, root))
    among = np.concatenate([v, np.full(2000, 0.06)])  # control: half as many at 1.5 of the level
    assert texture(among, 9, root) > texture(v, 9, root) + 0.01


@pytest.mark.parametrize("sigma", [0.05, 0.3])
def test_noise_of_smooth_images_is_found_for_the_set_and_for_each_image(sigma: float) -> None:
    """20 draws; the bounds are those that coverage of 85 % breaks once in 1,000 times."""
    x, draws = smooth(), 20
    levels = [level_of_set(x + sigma * np.random.default_rng(1 + k).standard_normal(x.shape)) for k in range(draws)]
    assert np.median([abs(level.value / sigma - 1) for level in levels]) < 0.02
    assert sum(level.low < sigma < level.high for level in levels) >= binom.ppf(1e-3, draws, 0.85)
    assert sum(level.low < 1.1 * sigma < level.high for level in levels) < 0.5 * draws  # control
    y = x + sigma * np.random.default_rng(1).standard_normal(x.shape)
    way = way_of_images(y)
    for shared in (None, levels[0]):
        each = levels_of_images(y, way, shared=shared)
        assert np.median([abs(one.value / sigma - 1) for one in each]) < 0.1
        inside = sum(one.low <= sigma <= one.high for one in each)
        assert inside > binom.ppf(1e-3, len(each), 0.85)
        # control: an interval of the wrong level covers nothing
        assert sum(one.low <= 2 * sigma <= one.high for one in each) < 5
    kind = whiteness(y)
    assert kind is not None
    assert kind.white


def test_the_darkest_patches_tell_the_level_where_most_are_textured_alike() -> None:
    """A third of each image is black, the rest is Gaussian texture: of all patches, as of noise of that level, no root
    tells the two apart; the darkest ones do. 4 standard errors of 60 images of 300 black pixels and more."""
    rng, sigma = np.random.default_rng(0), 0.2
    texture = np.clip(0.3 + 0.15 * rng.standard_normal((60, 1, 32, 32)), -1, 1)
    texture[:, :, :11] = -1
    y = texture + sigma * rng.standard_normal(texture.shape)
    level = level_of_set(y)
    assert level.value == pytest.approx(sigma, abs=4 * sigma / np.sqrt(2 * 60 * 300 * 0.05))
    assert level.high < 0.9 * np.hypot(sigma, 0.15)
    # patches that saturate in part leave no fair sample beside them: such ends are not looked at
    end = Candidate(2, np.arange(1, 4), shades=(-np.inf, -1.9))
    assert np.isfinite(end.energies(y)).any()
    assert np.isnan(end.energies(np.maximum(y, -1), (-1.0, 1.0))).all()


def test_pixels_that_noise_hides_are_told_by_their_mean_too() -> None:
    """Of 12 empty pixels among 40 that are lit in one image of ten, at noise as large as what is lit."""
    rng, n, found = np.random.default_rng(0), 250, np.zeros(3)
    for _ in range(20):
        x = np.where(rng.random((n, 52)) < 0.1, 0.0, -1.0)
        x[:, :12] = -1
        y = x + rng.standard_normal(x.shape)
        found += [np.mean(order[:12] < 12) for order in _orders(y.mean(0), y.var(0), n)]
        np.testing.assert_array_equal(_orders(-y.mean(0), y.var(0), n)[2], _orders(y.mean(0), y.var(0), n)[1])
    by_variance, with_dark, with_bright = found / 20
    assert with_dark > by_variance + 0.1
    assert with_bright < by_variance  # control: what is empty is dark here


def test_the_noise_of_a_mean_does_not_raise_the_level_of_pixels() -> None:
    """Noise alone: 40 fits to 30 images, each seen on 400 others, to 4 errors; 1/30 more without the scale."""
    rng, found, raw = np.random.default_rng(0), [], []
    for _ in range(40):
        way = next(c for c in _of_whole_images(rng.standard_normal((30, 1, 8, 8)), 30) if c.mean is not None)
        v = way.energies(rng.standard_normal((400, 1, 8, 8))).mean()
        found.append(v)
        raw.append(v / (way.kept.max() ** 2))
    error = np.std(found) / np.sqrt(40)
    assert abs(np.mean(found) - 1) < 4 * error < 0.03
    assert np.mean(raw) - np.mean(found) == pytest.approx(1 / 30, rel=0.05)


def test_intervals_of_images_that_share_a_level_are_those_of_their_own_errors() -> None:
    """Exact: values over the level, at 5 and 95 %, are the ends; scaled images have scaled intervals."""
    y = smooth() + 0.1 * np.random.default_rng(1).standard_normal((60, 1, 32, 32))
    way, level = way_of_images(y), level_of_set(y)
    each = levels_of_images(y, way, shared=level)
    small, large = np.quantile([one.value / level.value for one in each], [0.05, 0.95])
    for one in each:
        assert (one.low, one.high) == (pytest.approx(one.value / large), pytest.approx(one.value / small))
    few = levels_of_images(y[:10], way, shared=level)  # too few to say: their intervals are those without `shared`
    assert few == levels_of_images(y[:10], way)


@pytest.mark.parametrize(("side", "kept", "share"), [(2, (1, 2, 3), 0.0), (3, tuple(range(1, 9)), -0.4)])
def test_intervals_of_large_images_are_those_of_a_part_by_the_root_of_their_patches(
    side: int, kept: tuple[int, ...], share: float
) -> None:
    """Against images of the whole size. An end of 200 draws has a relative error of 1.3/sqrt(200) under a normal law
    (sqrt(.05 .95/200)/.103 over 1.645), both together sqrt(2) times that; four of those."""
    shape, candidate, rng = (1, 160, 160), Candidate(side, np.array(kept), share=share), np.random.default_rng(1)
    logs = []
    for _ in range(200):
        (image,) = candidate.energies(rng.standard_normal((1, *shape)))
        logs.append(-0.5 * np.log(level_module._of_one(image, candidate)[0]))
    seen, within = np.quantile(logs, [0.05, 0.95]), 4 * 1.3 * np.sqrt(2 / 200)
    made = np.array(level_module._simulated_spread(shape, side, kept, share))
    assert made == pytest.approx(seen, rel=within)
    part = np.array(level_module._simulated_spread((1, 64, 64), side, kept, share))
    assert (np.abs(part / seen - 1) > within).all()  # control: 64 pixels a side scatter 2.5 times as much


def test_a_large_image_is_measured_in_little_memory_and_its_interval_holds_the_level(tmp_path: Path) -> None:
    import tracemalloc

    sigma, side = 0.1, 384
    y = 0.1 + sigma * np.random.default_rng(0).standard_normal((1, side, side))
    np.savez(tmp_path / "a.npz", images=y.astype(np.float32))
    tracemalloc.start()
    try:
        report = noise_of(str(tmp_path / "a.npz"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.levels[0].low < sigma < report.levels[0].high
    assert peak < 40 * y.nbytes  # 200 simulated images of this size would be 200 alone, and their patches 1,800 more


def test_a_level_follows_the_scale_of_the_images() -> None:
    y = smooth() + 0.1 * np.random.default_rng(1).standard_normal((60, 1, 32, 32))
    one, three = level_of_set(y), level_of_set(3 * y)
    assert three.value == pytest.approx(3 * one.value, rel=1e-9)
    assert three.high == pytest.approx(3 * one.high, rel=1e-9)


@pytest.mark.parametrize("axes", [(2,), (3,), (2, 3)])
@pytest.mark.parametrize("rho", [0.3, -0.3])
def test_correlated_noise_is_flagged_with_its_correlation(axes: tuple[int, ...], rho: float) -> None:
    x = smooth(100)
    rng = np.random.default_rng(1)
    y = x + 0.2 * correlated(x.shape, rho, axes, rng)
    kind = whiteness(y)
    assert kind is not None
    assert not kind.white
    for axis, found in ((2, kind.down), (3, kind.across)):
        assert found == pytest.approx(rho if axis in axes else 0, abs=0.12)
    frequencies = [f for f, _ in kind.spectrum]
    assert frequencies == sorted(frequencies)
    assert (kind.spectrum[0][1] > kind.spectrum[-1][1]) == (rho > 0)


def test_gain_and_read_noise_are_those_of_a_simulated_camera() -> None:
    rng = np.random.default_rng(0)
    electrons = 5 + 200 * (smooth(100, 48) + 0.8)
    y = 100 + 2 * rng.poisson(electrons) + rng.normal(0, 5, electrons.shape)
    line = gain_of(y)
    assert line is not None
    assert line.grows
    assert line.gain == pytest.approx(2, rel=0.1)
    assert line.read_noise == pytest.approx(np.sqrt(25 + 4 * 5), rel=0.15)  # at 5 electrons
    scaled = gain_of((y - 300) / 200)
    assert scaled is not None
    back = scaled.scaled(100, 200)
    assert (back.gain, back.intercept) == (pytest.approx(line.gain, rel=0.05), pytest.approx(line.intercept, rel=0.1))
    assert gain_of(y[:, :, :8, :8]) is None  # too small to tell noise from texture
    white = gain_of(electrons + rng.normal(0, 5, electrons.shape))  # control
    assert white is None or not white.grows
    assert Gain(2.0, 0.1, -100.0, 1.0, 60.0, 90.0).variance(np.array([40.0, 60.0])).tolist() == [0, 20]


@pytest.mark.parametrize(("photons", "within"), [(30, 0.05), (300, 0.05)])
def test_the_gain_of_photographs_is_hardly_raised_by_their_texture(photons: float, within: float) -> None:
    """Counts of photographs, 4 standard errors; the mean squares of all patches say 8 % more or worse (control)."""
    rng = np.random.default_rng(0)
    x = (load_images("photos32", holdout=0.0).pixels() + 1) / 2
    y = 2 * rng.poisson(x * photons + 5) + 100 + rng.normal(0, 5, x.shape)
    line = gain_of(y)
    assert line is not None
    assert abs(line.gain - 2) < 4 * line.gain_stderr
    assert line.gain == pytest.approx(2, rel=within)
    assert line.gain_stderr < 0.1
    side, kept = fine(3, (32, 32), 3)
    values = coefficients(y, side)[0]
    shade, energy = values[..., 0].ravel() / (side * 3**0.5), (values[..., kept] ** 2).mean(-1).ravel()
    bins = np.array_split(np.argsort(shade), 10)
    level = np.array([energy[b].mean() for b in bins])
    assert np.polyfit([shade[b].mean() for b in bins], level, 1, w=1 / level)[0] > 2.15


@pytest.mark.parametrize(("photons", "most"), [(30, 1.15), (300, 1.6)])
def test_small_bright_objects_raise_the_gain_by_no_more_than_the_docs_say(photons: float, most: float) -> None:
    """Beads of one or two pixels have no flat part: the gain is an upper one, and docs/data.md says by how much."""
    rng = np.random.default_rng(0)
    y = 2 * rng.poisson(cells(1000)[:, None] / 400 * photons + 5) + 100 + rng.normal(0, 5, (1000, 1, 16, 16))
    line = gain_of(y)
    assert line is not None
    assert 0.9 < line.gain / 2 < most


def test_sets_are_told_apart_and_the_table_is_what_train_reads(tmp_path: Path) -> None:
    x = 0.4 * smooth(40)[:, 0]
    rng = np.random.default_rng(1)
    files = {}
    for kind, sigma in (("clean", 0), ("noisy", 0.2)):
        for i, image in enumerate(x + sigma * rng.standard_normal(x.shape)):
            pixels = np.rint(np.clip(image * 127.5 + 127.5, 0, 255)).astype(np.uint8)
            files[f"{kind}/{i:03d}.png"] = png(pixels[None])
    root = write_folder(tmp_path / "pairs", files)
    refused = ambient("data", "noise", root, "--table", tmp_path / "x.csv", "--quiet")
    assert (refused.exit_code, "dataset.csv" in refused.stderr) == (2, True)
    assert ambient("train", "--data", root, "--dry-run", "--quiet").exit_code == 3  # levels are asked for
    result = ambient("data", "noise", root, "--table", root / "dataset.csv", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    clean, noisy = found["sets"]
    assert (clean["name"], clean["clean"], noisy["clean"], noisy["white"]) == ("clean/", True, False, True)
    assert noisy["level"]["value"] == pytest.approx(0.2, rel=0.05)
    loaded = load_images(str(root), holdout=0.0)
    assert loaded.sigma_n is not None
    np.testing.assert_allclose(loaded.sigma_n, [0] * 40 + [found["images"][-1]["sigma"]] * 40, rtol=1e-6)
    again = ambient("data", "noise", root, "--table", root / "dataset.csv", "--quiet")
    assert (again.exit_code, "--overwrite" in again.stderr) == (2, True)


def test_mixed_images_of_one_file_are_split_and_written_beside_it(tmp_path: Path) -> None:
    x = smooth(60)
    sigma = np.where(np.arange(60) % 3 == 0, 0.25, 0.05)
    y = x + sigma[:, None, None, None] * np.random.default_rng(1).standard_normal(x.shape)
    np.savez(tmp_path / "a.npz", images=y.astype(np.float32))
    report = noise_of(str(tmp_path / "a.npz"), table=tmp_path / "a.sigma.npy")
    assert [s.images for s in report.sets] == [40, 20]
    loaded = load_images(str(tmp_path / "a.npz"), holdout=0.0)
    assert loaded.sigma_n is not None
    np.testing.assert_allclose(loaded.sigma_n, sigma, rtol=0.05)
    with pytest.raises(UsageError, match="a table needs"):
        noise_of(str(tmp_path / "a.npz"), NoiseOptions(max_images=3), table=tmp_path / "a.sigma.npy", overwrite=True)
    with pytest.raises(UsageError, match="no table beside"):
        noise_of("digits", table=tmp_path / "x.csv")


def test_levels_of_counts_are_in_counts_and_read_back_as_such(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", counts(100, 32, level=60))
    report = noise_of(str(path), table=tmp_path / "a.sigma.npy")
    assert report.unit == "the units of the files"
    assert report.sets[0].level.value == pytest.approx(60, rel=0.05)
    loaded = load_images(str(path), holdout=0.0)
    assert loaded.values is not None
    assert loaded.sigma_n is not None
    np.testing.assert_allclose(loaded.sigma_n * loaded.values.unit, report.told, rtol=1e-5)


def test_levels_in_grey_values_of_255_are_named_as_such(tmp_path: Path) -> None:
    y = smooth() + 0.1 * np.random.default_rng(1).standard_normal((60, 1, 32, 32))
    np.savez(tmp_path / "a.npz", images=y.astype(np.float32), sigma=np.full(60, 12.75))
    (note,) = [n for n in noise_of(str(tmp_path / "a.npz")).notes if "is stated" in n]
    assert "grey values of 255" in note


def test_noise_that_was_clipped_at_a_background_is_named_and_backgrounds_without_noise_are_not(tmp_path: Path) -> None:
    """Half of an empty background is clipped: 0.25 of the pixels where it fills half of the images."""
    x = smooth()
    x[:, :, :16] = -1
    noise = 0.1 * np.random.default_rng(1).standard_normal(x.shape)
    for name, y, share in (("noisy", x + noise, 0.25), ("clean", x, 0.0), ("inside", 0.2 + 0.5 * x + noise, 0.0)):
        pixels = np.rint(np.clip(y * 127.5 + 127.5, 0, 255)).astype(np.uint8)
        assert clipped_share(pixels / 127.5 - 1, (-1, 1)) == pytest.approx(share, abs=0.02)
        np.savez(tmp_path / f"{name}.npz", images=pixels)
        notes = [n for n in noise_of(str(tmp_path / f"{name}.npz")).notes if "clipped" in n]
        named = f"all images: {(pixels == 0).mean():.0%} of the pixels"
        assert [n[: len(named)] for n in notes] == ([named] if share else [])
    assert clipped_share(pixels / 127.5 - 1, None) == 0


def test_check_names_single_images_that_contradict_their_level(tmp_path: Path) -> None:
    stated = np.full(60, 0.2)
    true = stated.copy()
    true[[7, 30]] = 0.02, 0.6
    y = smooth() + true[:, None, None, None] * np.random.default_rng(1).standard_normal((60, 1, 32, 32))
    np.savez(tmp_path / "a.npz", images=y.astype(np.float32), sigma=stated)
    (note,) = [n for n in check(str(tmp_path / "a.npz")).notes if "stated level" in n]
    assert note.startswith("2 of 60 images contradict their stated level: image 7 (0.2 stated, 0.0")
    assert "image 30 (0.2 stated, 0.5" in note
    np.savez(tmp_path / "b.npz", images=(y[stated == true]).astype(np.float32), sigma=stated[stated == true])  # control
    assert not [n for n in check(str(tmp_path / "b.npz")).notes if "stated level" in n]


@pytest.mark.parametrize("name", SETS)
def test_clean_images_are_not_called_noisy(name: str) -> None:
    level = level_of_set(images_of(name, SETS[name], 0))
    assert level.value < CLEAN


def test_few_and_small_images_are_measured_or_refused(tmp_path: Path) -> None:
    y = smooth(2) + 0.2 * np.random.default_rng(1).standard_normal((2, 1, 32, 32))
    np.savez(tmp_path / "a.npz", images=y.astype(np.float32))
    report = noise_of(str(tmp_path / "a.npz"))
    assert report.levels[0].low < 0.2 < report.levels[0].high
    np.savez(tmp_path / "b.npz", images=np.zeros((5, 2, 2), np.float32))
    with pytest.raises(DataError, match="too small"):
        noise_of(str(tmp_path / "b.npz"))
    flat = Candidate(2, np.arange(1, 4)).energies(np.ones((1, 1, 4, 4)), (-1, 1))
    assert np.isfinite(flat).all()  # all at the end is flat, in part is clipped
    half = np.ones((1, 1, 4, 4))
    half[..., ::2] = 0.5
    assert np.isnan(Candidate(2, np.arange(1, 4)).energies(half, (-1, 1))).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_the_level_of_known_noise_is_within_five_percent_and_intervals_cover_it(name: str) -> None:
    """15 draws of images and noise at each of five levels: median error at most 5 %, coverage 90 % within 5 points and
    the error of a share of 75 draws, and hardly any interval reaches 5 % further than it should."""
    errors, covered, wrong = [], 0, 0
    for sigma in SIGMAS:
        for draw in range(15):
            seed = SIGMAS.index(sigma) * 15 + draw  # other images and noise at each level, so that 75 draws are 75
            x = images_of(name, SETS[name], seed)
            y = x + sigma * np.random.default_rng(1000 + seed).standard_normal(x.shape)
            level = level_of_set(y)
            errors.append(abs(level.value / sigma - 1))
            covered += level.low <= sigma <= level.high
            wrong += level.low <= 1.05 * sigma <= level.high
        assert np.median(errors[-15:]) < 0.05, sigma
    assert covered / 75 > 0.85 - 2 * np.sqrt(0.85 * 0.15 / 75)
    assert wrong / 75 < 0.25  # control: intervals are not so wide that they hold everything


def textured(count: int, channels: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Images [count, channels, side, side] of white texture whose contrast goes smoothly over orders of magnitude."""
    contrast = gaussian_filter(rng.standard_normal((count, 1, side, side)), (0, 0, side / 8, side / 8), mode="wrap")
    texture = rng.standard_normal((count, channels, side, side))
    return np.clip(0.1 * np.exp(2.5 * contrast / contrast.std()) * texture, -1, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "channels", "side", "sigma"), [(400, 1, 16, 0.2), (60, 3, 24, 0.1), (200, 1, 20, 0.5)]
)
def test_intervals_cover_where_texture_of_all_strengths_raises_the_level(
    monkeypatch: pytest.MonkeyPatch, count: int, channels: int, side: int, sigma: float
) -> None:
    """30 draws. Control: intervals that allow for one error of both halves, and not for what the roots show."""
    draws, levels, controls = 30, [], []
    for draw in range(draws):
        rng = np.random.default_rng((1, draw))
        x = textured(count, channels, side, rng)
        y = x + sigma * rng.standard_normal(x.shape)
        levels.append(level_of_set(y))
        with monkeypatch.context() as without:
            without.setattr(level_module, "texture", lambda v, m, s2: 0.0)
            without.setattr(level_module, "_UNSEEN", np.sqrt(0.5))
            controls.append(level_of_set(y))
    assert sum(level.low <= sigma <= level.high for level in levels) >= binom.ppf(1e-2, draws, 0.85)
    assert sum(level.low <= sigma <= level.high for level in controls) < binom.ppf(1e-2, draws, 0.85)
    widths = [np.median([level.high - level.low for level in of]) for of in (levels, controls)]
    assert widths[0] < 3 * widths[1]  # they are not covered by intervals that say nothing
    assert sum(level.low <= 1.2 * sigma <= level.high for level in levels) < 0.2 * draws


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_intervals_of_single_images_that_share_a_level_cover_ninety_percent(name: str) -> None:
    """Five levels: 90 % within 5 points and two errors of a share of 200, at each of them."""
    for sigma in SIGMAS:
        x = images_of(name, min(SETS[name], 500), 50)
        y = x + sigma * np.random.default_rng(1050).standard_normal(x.shape)
        each = levels_of_images(y, way_of_images(y), shared=level_of_set(y))
        covered = np.mean([one.low <= sigma <= one.high for one in each])
        assert abs(covered - 0.9) < 0.05 + 2 * np.sqrt(0.9 * 0.1 / 200), sigma
        assert np.mean([one.low <= 2 * sigma <= one.high for one in each]) < 0.5  # control


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_correlated_noise_in_200_images_is_flagged_in_95_percent_and_white_noise_is_not(name: str) -> None:
    flagged, false, n = 0, 0, 0
    for sigma in (0.05, 0.2, 0.5):
        for seed in range(9):
            x = images_of(name, 200, seed)
            rng = np.random.default_rng(seed)
            for rho in (0.3, 0.0):
                y = x + sigma * correlated(x.shape, rho, ((3,), (2, 3), (2,))[seed % 3], rng)
                kind = whiteness(y)
                if rho:
                    flagged += kind is not None and not kind.white
                    n += 1
                else:
                    false += kind is None or not kind.white
    assert flagged >= 0.95 * n - 2 * np.sqrt(n * 0.95 * 0.05)
    assert false <= 0.05 * n + 2 * np.sqrt(n * 0.95 * 0.05)


def test_the_spectrum_of_empty_frames_is_that_of_their_noise_and_a_fixed_pattern_is_left_out(tmp_path: Path) -> None:
    from ambient_train.data.estimation.spectrum import noise_spectrum
    from ambient_train.data.noise_models._numbers import smoothed

    rng, n, side, sigma = np.random.default_rng(0), 400, 16, 0.3
    truth = smoothed(0.6, (side, side))[0].astype(float) * sigma**2
    frames = np.fft.irfft2(np.sqrt(truth) * np.fft.rfft2(rng.normal(size=(n, 1, side, side))), s=(side, side))
    frames = frames + rng.normal(size=(1, 1, side, side))  # the fixed pattern
    found = noise_spectrum(frames)[0]
    # every value scatters by at most sqrt(2/n) of itself
    assert np.abs(found / truth - 1).max() < 5 * (2 / n) ** 0.5
    assert np.abs(noise_spectrum(frames + rng.normal(0, 0.1, frames.shape))[0] / truth - 1).max() > 1  # the control
    np.save(tmp_path / "dark.npy", frames[:, 0].astype(np.float32))
    where = tmp_path / "noise.spectrum.npy"
    report = noise_of(f"{tmp_path / 'dark.npy'}:range=-1..1", spectrum=where)
    np.testing.assert_allclose(np.load(where)[0], found, rtol=1e-4)
    assert report.sets
    for path, error, text in (
        (where, UsageError, "exists"),
        (tmp_path / "a.csv", UsageError, "must end in .npy"),
        (tmp_path / "no" / "a.npy", DataError, "no such directory"),
    ):
        with pytest.raises(error, match=text):
            noise_of(str(tmp_path / "dark.npy"), spectrum=path)
    np.save(tmp_path / "few.npy", frames[:5, 0].astype(np.float32))
    with pytest.raises(DataError, match="needs 8 images without content or more, there are 5"):
        noise_of(f"{tmp_path / 'few.npy'}:range=-1..1", spectrum=tmp_path / "b.npy")


def test_a_stated_level_is_named_in_the_units_of_its_files(tmp_path: Path) -> None:
    noisy = 2000 + 400 * np.random.default_rng(0).normal(size=(20, 16, 16))
    np.save(tmp_path / "a.npy", noisy.astype(np.uint16))
    np.save(tmp_path / "a.sigma.npy", np.full(20, 400.0))
    (found,) = noise_of(str(tmp_path / "a.npy"), NoiseOptions()).sets
    assert found.name == "stated 400"
    assert found.stated == pytest.approx(400)
