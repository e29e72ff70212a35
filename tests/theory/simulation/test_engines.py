"""Draws: Sheppard's correction, binned against exact, the Wishart engine against real samples."""

import numpy as np
import pytest
from scipy import stats

from ambient_theory.bounds.sizes import n_l
from ambient_theory.mixtures.dmm import fit_dmm
from ambient_theory.mixtures.laws import AtomicLaw, embed, hard_delta, hard_pair, scaled
from ambient_theory.mixtures.moments import hermite
from ambient_theory.mixtures.w1 import w1_line
from ambient_theory.shared.errors import UsageError
from ambient_theory.simulation.engines import bin_edges, binned_moments, draw_binned, exact_moments
from ambient_theory.simulation.wishart import draw_second_moments, standard_wishart

LAW = AtomicLaw([-0.6, 0.9], [0.4, 0.6])


@pytest.mark.parametrize("h_over_s", [0.05, 0.2, 0.45])
def test_sheppards_correction_makes_binned_moments_unbiased(h_over_s):
    """Expectation over the exact bin probabilities, so no sampling error: the bias itself is computed."""
    s, radius = 1.0, 2.0
    bins = int(np.ceil(2 * (radius + 8 * s) / (h_over_s * s)))
    edges = bin_edges(radius, s, bins)
    h, centres = edges[1] - edges[0], (edges[1:] + edges[:-1]) / 2
    p = LAW.bin_probabilities(edges, s)
    truth = LAW.moments(3)[1:]
    corrected = hermite(centres, np.sqrt(s**2 + h**2 / 12), 3) @ p
    np.testing.assert_allclose(corrected, truth, atol=2e-11)
    without = hermite(centres, s, 3) @ p
    assert abs(without[1] - truth[1]) == pytest.approx(h**2 / 12, rel=1e-6)  # the negative control


def test_no_bin_is_wider_than_half_the_noise_and_noise_of_another_unit_is_refused():
    for s, bins in ((1.0, 500), (0.01, 832), (0.001, 8032)):
        edges = bin_edges(2.0, s, 500)
        assert len(edges) == bins + 1
        assert np.diff(edges).max() <= s / 2 * (1 + 1e-9)
    with pytest.raises(UsageError, match="give --radius in the unit of the noise"):
        bin_edges(2.0, 1e-20, 500)


def test_binned_and_exact_engines_have_the_same_law():
    rng, s, n, reps = np.random.default_rng(7), np.array([1.0, 2.0]), [300, 900], 400
    law = scaled(hard_pair(2)[0], hard_delta(2, n_l(2, s, n)))
    binned = binned_moments(draw_binned([(law, reps)], s, n, 2.0, rng), 3)
    exact = exact_moments([(law, reps)], s, n, 3, rng)
    errors = []
    for moments in (binned, exact):
        fit = fit_dmm(moments, -2.0, 2.0)
        errors.append(w1_line(fit.atoms, fit.weights, law.line(), law.weights))
    assert stats.ks_2samp(*errors).pvalue > 1e-3
    for level in (0, 1):
        for j in range(3):
            assert stats.ks_2samp(binned.means[:, level, j], exact.means[:, level, j]).pvalue > 1e-3
    shifted = exact_moments([(scaled(law, 1.3), reps)], s, n, 3, rng)  # the negative control
    assert stats.ks_2samp(shifted.means[:, 0, 1], binned.means[:, 0, 1]).pvalue < 1e-3


def test_counts_add_up_at_enormous_n():
    (level,) = draw_binned([(LAW, 3)], np.array([1.0]), [10**15], 2.0, np.random.default_rng(0))
    assert level.counts.sum(axis=1).tolist() == [10**15] * 3
    with pytest.raises(UsageError, match="at most"):
        draw_binned([(LAW, 3)], np.array([1.0]), [2**63], 2.0, np.random.default_rng(0))


@pytest.mark.parametrize("freedom", [0, 2, 5, 10**9])
def test_wishart_has_its_mean_and_variance(freedom):
    rng, d, reps = np.random.default_rng(1), 4, 1500
    w = np.array([standard_wishart(freedom, d, rng) for _ in range(reps)])
    scale = np.sqrt(max(freedom, 1))
    se = 2 * scale / np.sqrt(reps)
    assert np.abs(w.mean(axis=0) - freedom * np.eye(d)).max() < 5 * se
    if freedom:
        variance = w.var(axis=0) / freedom
        expected = np.ones((d, d)) + np.eye(d)
        assert np.abs(variance / expected - 1).max() < 6 * np.sqrt(2 / reps) * (2 if freedom < 10 else 1)


def test_wishart_engine_has_the_law_of_real_samples():
    rng, s, n, reps = np.random.default_rng(2), np.array([1.0, 2.0]), [6, 9], 400
    law = embed(AtomicLaw([-1.0, 2.0], [0.3, 0.7]), 3)
    drawn, real = [], []
    for _ in range(reps):
        first, second = draw_second_moments(law, s, n, rng)
        drawn.append([first[0, 0], first[1, 1], second[0, 0, 0], second[1, 1, 1], second[1, 0, 1], second[0, 1, 2]])
        x = [law.sample(np.full(count, level), rng) for level, count in zip(s, n, strict=True)]
        f, q = [v.sum(axis=0) for v in x], [v.T @ v for v in x]
        real.append([f[0][0], f[1][1], q[0][0, 0], q[1][1, 1], q[1][0, 1], q[0][1, 2]])
    for a, b in zip(np.array(drawn).T, np.array(real).T, strict=True):
        assert stats.ks_2samp(a, b).pvalue > 1e-3
    joint = [np.corrcoef(np.array(v)[:, 0], np.array(v)[:, 2])[0, 1] for v in (drawn, real)]
    assert abs(joint[0] - joint[1]) < 5 * np.sqrt(2 / reps)  # mean and second moment are drawn jointly
