"""Noise that is not known or stated wrongly: the likelihood of a factor on it, its interval, and what it moves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from two_atoms import LAW, drawn

from ambient_theory.mixtures.estimators import HeteroscedasticMixture
from ambient_theory.mixtures.inference import one_number_quantile
from ambient_theory.mixtures.laws import AtomicLaw, hard_pair, scaled
from ambient_theory.mixtures.noise_scale import noise_scale
from ambient_theory.mixtures.points import BINS_PER_SIGMA, log_sum_exp
from ambient_theory.mixtures.w1 import w1
from ambient_theory.shared.errors import DataError, UsageError


def test_one_atom_has_the_likelihood_of_a_variance() -> None:
    """`c^2 = sum (x - m)^2 / s^2 / n` about the Gauss-Markov mean m, and `2 (l - l_max) = n (log r + 1/r - 1)`, r = c^2
    over its estimate."""
    x, s = drawn(60)
    found = noise_scale(HeteroscedasticMixture(1), x, s)
    mean = np.sum(x[:, 0] / s**2) / np.sum(s**-2)
    square = np.mean(((x[:, 0] - mean) / s) ** 2)
    assert found.scale == pytest.approx(math.sqrt(square), rel=2e-3)
    q = one_number_quantile(0.9)
    for end in (found.low, found.high):
        r = end**2 / square
        assert len(x) * (math.log(r) + 1 / r - 1) == pytest.approx(q, rel=0.02)
    assert found.rejected
    assert found.sensitivity == pytest.approx(0, abs=1e-6)  # the mean of noise that is scaled is the same


def test_where_labels_are_seen_it_is_the_residual_deviation() -> None:
    """Atoms 40 units of noise apart: c is that of a regression on the labels, on the line and in space."""
    x, s = drawn(200, law=AtomicLaw([-20, 20]), levels=(0.5, 1.0))
    label = x[:, 0] > 0
    rest = 0.0
    for side in (label, ~label):
        mean = np.sum(x[side, 0] / s[side] ** 2) / np.sum(s[side] ** -2.0)
        rest += float(np.sum(((x[side, 0] - mean) / s[side]) ** 2))
    assert noise_scale(HeteroscedasticMixture(2, random_state=0), x, s).scale == pytest.approx(
        math.sqrt(rest / 200), rel=2e-3
    )
    space = AtomicLaw(40 * np.eye(6)[:2])
    y, s = drawn(100, law=space, levels=(0.5, 1.0))
    label = y[:, 0] > 20
    rest = 0.0
    for side in (label, ~label):
        w = s[side, None] ** -2.0
        rest += float(np.sum(w * (y[side] - np.sum(w * y[side], axis=0) / w.sum()) ** 2))
    found = noise_scale(HeteroscedasticMixture(2, random_state=0), y, s)
    assert found.scale == pytest.approx(math.sqrt(rest / (6 * 100 - 5 * 2)), rel=3e-3)  # n - k samples outside the line


def test_scaling_data_and_noise_together_changes_nothing_and_noise_alone_divides() -> None:
    x, s = drawn(80)
    model = HeteroscedasticMixture(2, random_state=0)
    one = noise_scale(model, x, s)
    same = noise_scale(model, 1e3 * x, 1e3 * s)
    wrong = noise_scale(model, x, 50 * s)
    unknown = noise_scale(model, x[s == 0.5])
    stated = noise_scale(model, x[s == 0.5], 0.5)
    for a, b in ((same.scale, one.scale), (50 * wrong.scale, one.scale), (unknown.scale, 0.5 * stated.scale)):
        assert a == pytest.approx(b, rel=3e-3)
    assert same.sensitivity == pytest.approx(1e3 * one.sensitivity, rel=0.05)
    assert wrong.rejected
    assert wrong.p < 1e-6
    assert (unknown.known, unknown.rejected) == (False, False)
    assert math.isnan(unknown.p)


def test_the_profile_reaches_the_quantile_at_the_ends_of_its_interval_and_binning_does_not_show() -> None:
    """Above 500 samples bins are read: 500 samples as they are and written twice, in bins, give the same c but for what
    rounding to bins of width h moves a deviation by, `h / (c sqrt(12 n))`, and where the search for it stops."""
    x, s = drawn(500, levels=(1.0,))
    found = noise_scale(HeteroscedasticMixture(2, random_state=0), x, s, level=0.8)
    assert found.relative_error == pytest.approx(math.log(found.high / found.low) / 2 / 1.2815516)
    at_ends = np.interp([found.low, found.high], found.at, found.drop)
    np.testing.assert_allclose(at_ends, one_number_quantile(0.8), rtol=0.05)
    assert np.all(np.diff(found.at) > 0)
    assert found.drop.min() == 0
    twice = noise_scale(HeteroscedasticMixture(2, random_state=0), np.repeat(x, 2, axis=0), np.repeat(s, 2), level=0.8)
    width = found.at[0] / BINS_PER_SIGMA
    rounding, stop = width / found.scale / math.sqrt(12 * 500), 0.02 / math.sqrt(2 * 500)
    assert math.log(twice.scale / found.scale) == pytest.approx(0, abs=4 * rounding + 2 * stop)
    assert math.log(twice.high / twice.low) == pytest.approx(math.log(found.high / found.low) / math.sqrt(2), rel=0.03)


def test_the_sensitivity_is_what_a_wrong_noise_moves_and_atoms_that_are_close_are_nearly_flat() -> None:
    x, s = drawn(400, law=scaled(hard_pair(2)[0], 1.5), levels=(1.0,))
    model = HeteroscedasticMixture(2, random_state=0)
    found = noise_scale(model, x, s)
    fits = [HeteroscedasticMixture(2, random_state=0).fit(x, noise_std=found.scale * f * s).law_ for f in (0.98, 1.02)]
    assert w1(*fits) / math.log(1.02 / 0.98) == pytest.approx(found.sensitivity, rel=0.1)
    assert found.reach > 0.02
    close, s = drawn(100, law=scaled(hard_pair(2)[0], 0.3), levels=(1.0,))
    assert noise_scale(HeteroscedasticMixture(3, random_state=0, n_init=1), close, s, level=0.99).flat
    assert not found.flat


def test_intervals_with_unknown_noise_are_those_of_student_for_one_atom_and_hold_those_of_known_noise() -> None:
    """One atom: `n log(1 + (m - mean)^2 P / (n c^2)) <= q`, P = sum s^-2. Several: wider than with c as known."""
    x, s = drawn(30)
    found = noise_scale(HeteroscedasticMixture(1), x, s, intervals=True)
    u, q, n = found.uncertainty, one_number_quantile(0.9), 30
    assert u is not None
    half = found.scale * math.sqrt(n * math.expm1(q / n) / np.sum(s**-2.0))
    assert (u.means_high[0, 0] - u.means_low[0, 0]) / 2 == pytest.approx(half, rel=0.01)
    x, s = drawn(200, law=scaled(hard_pair(2)[0], 1.0), levels=(1.0,))
    model = HeteroscedasticMixture(2, random_state=0)
    found = noise_scale(model, x, s, intervals=True)
    u = found.uncertainty
    assert u is not None
    known = model.fit(x, noise_std=found.scale * s).intervals(x, noise_std=found.scale * s)
    assert np.all(u.means_low < known.means_low + 1e-3)
    assert np.all(u.means_high > known.means_high - 1e-3)
    assert np.max((u.means_high - u.means_low) / (known.means_high - known.means_low)) > 1.5
    with pytest.raises(UsageError, match="for the line"):
        noise_scale(model, np.column_stack([x, x]), s, intervals=True)


@pytest.mark.parametrize(("weight", "d", "most"), [(2 / 3, 2, 1.07), (2 / 3, 5, 1.02), (0.9, 2, 1.17), (0.9, 5, 1.05)])
def test_in_space_an_unknown_noise_widens_standard_errors_of_two_atoms_as_said(
    weight: float, d: int, most: float
) -> None:
    """Fisher information of atoms, weight and log c: on the line by quadrature, and 2 (d - 1) for c from the noise
    outside it. On the line alone, the control, close atoms are far less sure with c unknown."""
    found, alone = [], []
    for distance in np.geomspace(0.4, 8, 40):
        a, w = np.array([0.0, distance]), np.array([weight, 1 - weight])
        x = np.linspace(a.min() - 9, a.max() + 9, 4001)[:, None]
        density = np.exp(-((x - a) ** 2) / 2) / math.sqrt(2 * math.pi)
        by_c = (density * w * ((x - a) ** 2 - 1)).sum(axis=1)
        gradient = np.column_stack([density * w * (x - a), density[:, 0] - density[:, 1], by_c])
        information = gradient.T @ (gradient / (density @ w)[:, None]) * (x[1, 0] - x[0, 0])
        known = np.diag(np.linalg.inv(information[:3, :3]))
        for outside, ratios in ((d - 1, found), (0, alone)):
            unknown = np.linalg.inv(information + np.diag([0, 0, 0, 2 * outside]))
            ratios.append(np.sqrt((np.diag(unknown)[:3] / known).max()))
    assert max(found) == pytest.approx(most, abs=0.005)
    assert max(alone) > 3


def test_what_has_no_noise_scale_is_refused() -> None:
    x, s = drawn(30)
    with pytest.raises(UsageError, match="any smaller noise fits"):
        noise_scale(HeteroscedasticMixture(method="npmle"), x, s)
    with pytest.raises(DataError, match="fewer atoms"):
        noise_scale(HeteroscedasticMixture(2), np.array([[1.0], [2.0], [1.0]]), 1.0)


def test_the_sum_of_exponentials_is_that_of_scipy() -> None:
    from scipy.special import logsumexp

    rows = np.array([[-1e4, -1e4 - 1], [0.0, -np.inf], [-np.inf, -np.inf], [700.0, 710.0]])
    np.testing.assert_allclose(log_sum_exp(rows), logsumexp(rows, axis=1), rtol=1e-15)


DESIGNS = {
    "hard": (scaled(hard_pair(2)[0], 1.5), (1.0,), (1.0,), 300),
    "mixed": (LAW, (0.7, 2.5), (0.3, 0.7), 300),
    "space": (AtomicLaw(np.outer([-2, 2], np.eye(20)[0])), (1.0, 2.0), (0.5, 0.5), 100),
}


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS)
def test_ninety_per_cent_intervals_of_the_scale_cover_ninety_per_cent_within_four_points(design: str) -> None:
    """With the control: of the same samples under noise that is stated wrongly by two widths, next to none."""
    law, levels, shares, n = DESIGNS[design]
    inside, wrong, reps = [], [], 40
    for rep in range(reps):
        rng = np.random.default_rng([rep, 7])
        s = rng.choice(levels, n, p=shares)
        x = law.sample(s, rng)
        found = noise_scale(HeteroscedasticMixture(law.k, random_state=0, n_init=1), x, s)
        inside.append(not found.rejected)
        width = found.high / found.low
        wrong.append(found.low <= width <= found.high)
    slack = 2 * math.sqrt(0.9 * 0.1 / reps)
    assert abs(np.mean(inside) - 0.9) < 0.04 + slack
    assert np.mean(wrong) < 0.3
