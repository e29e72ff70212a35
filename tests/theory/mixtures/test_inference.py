"""How sure: standard errors, intervals, the number of atoms, goodness of fit."""

import warnings

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from sklearn.exceptions import NotFittedError
from two_atoms import LAW, drawn

from ambient_theory.mixtures.estimators import HeteroscedasticMixture
from ambient_theory.mixtures.fisher import fisher_information
from ambient_theory.mixtures.inference import (
    anderson_darling,
    bias_corrected,
    goodness_of_fit,
    likelihood_ratio_test,
    matched,
    moment_refits,
    number_of_components,
    one_number_quantile,
    standard_errors,
)
from ambient_theory.mixtures.laws import AtomicLaw, hard_pair, scaled, separated_law
from ambient_theory.mixtures.points import line_points
from ambient_theory.shared.errors import UsageError


def flat(u):
    return (
        np.append(u.means_low, u.weights_low),
        np.append(u.means_high, u.weights_high),
        np.append(u.means_stderr, u.weights_stderr),
    )


def test_standard_errors_are_those_of_fisher_information():
    x, s = drawn(200_000)
    points = line_points(x[:, 0], s)
    by_atom, by_weight, covariance = standard_errors(points, LAW.atoms, LAW.weights)
    information = sum(np.sum(s == level) * fisher_information(LAW, level) for level in (0.5, 2.0))
    expected = np.sqrt(np.diag(np.linalg.inv(information)))
    found = [*by_atom[:, 0], by_weight[0]]
    np.testing.assert_allclose(found, expected, rtol=0.02)  # bins of s/6 lose a per cent of the information
    assert by_weight[0] == by_weight[1]
    np.testing.assert_allclose(covariance[2:, 2:].sum(), 0, atol=1e-12)


def test_where_the_data_say_nothing_the_standard_error_is_infinite():
    x, s = drawn(500)
    by_atom, _, _ = standard_errors(
        line_points(x[:, 0], s), np.array([[-1.5], [2.0], [9.0]]), np.array([0.35, 0.65, 0.0])
    )
    assert np.isinf(by_atom[2, 0])
    assert np.all(np.isfinite(by_atom[:2]))


@pytest.mark.parametrize("unit", [1e-20, 1e12])
@pytest.mark.parametrize("kind", ["likelihood", "fisher", "bootstrap"])
def test_intervals_follow_the_unit_of_the_samples(kind, unit):
    """Samples in coulombs or in metres: scores of atoms have the unit 1/x and those of weights none."""
    x, s = drawn(200)
    one, other = (
        HeteroscedasticMixture(random_state=0)
        .fit(c * x, noise_std=c * s)
        .intervals(c * x, noise_std=c * s, kind=kind, n_boot=19)
        for c in (1.0, unit)
    )
    for name in ("low", "high", "stderr"):
        np.testing.assert_allclose(getattr(other, f"means_{name}") / unit, getattr(one, f"means_{name}"), rtol=2e-3)
        np.testing.assert_allclose(getattr(other, f"weights_{name}"), getattr(one, f"weights_{name}"), rtol=2e-3)


@pytest.mark.parametrize("kind", ["likelihood", "fisher"])
def test_of_one_atom_the_information_is_known_even_where_all_samples_are_equal(kind):
    x = np.full((9, 1), 5.0)
    u = HeteroscedasticMixture(1).fit(x, noise_std=1.5).intervals(x, noise_std=1.5, kind=kind)
    np.testing.assert_allclose(flat(u)[2], [0.5, 0])
    np.testing.assert_allclose(u.means_high - 5, 0.5 * ndtri(0.95))


def test_all_kinds_of_interval_agree_where_the_likelihood_is_a_parabola():
    x, s = drawn(1500)
    model = HeteroscedasticMixture(random_state=0).fit(x, noise_std=s)
    low, high, error = flat(model.intervals(x, noise_std=s))
    for kind, tolerance in (("fisher", 0.1), ("bootstrap", 1.0)):
        other = model.intervals(x, noise_std=s, kind=kind, n_boot=40)
        assert other.kind == kind
        lower, upper, _ = flat(other)
        np.testing.assert_allclose(lower, low, atol=tolerance * error.max())
        np.testing.assert_allclose(upper, high, atol=tolerance * error.max())
    wide = flat(model.intervals(x, noise_std=s, level=0.99))
    assert np.all(wide[0] < low)
    assert np.all(wide[1] > high)


def test_one_atom_has_the_interval_of_the_gauss_markov_mean():
    x, s = drawn(50)
    model = HeteroscedasticMixture(1).fit(x, noise_std=s)
    u = model.intervals(x, noise_std=s, level=0.95)
    error = np.sum(s**-2.0) ** -0.5
    mean = np.sum(x[:, 0] / s**2) * error**2
    assert u.kind == "likelihood"
    assert (u.means_low[0, 0], u.means_high[0, 0]) == pytest.approx((mean - 1.959964 * error, mean + 1.959964 * error))
    assert (u.weights_low[0], u.weights_high[0]) == (1, 1)


def test_likelihood_intervals_reach_the_quantile_and_stay_among_laws():
    """On a hard pair: weights stay in [0, 1] and atoms in the data, where the quadratic would leave them."""
    x, s = drawn(400, law=scaled(hard_pair(2)[0], 0.6), levels=(1.0,))
    model = HeteroscedasticMixture(random_state=0).fit(x, noise_std=s)
    low, high, _ = flat(model.intervals(x, noise_std=s))
    estimate = np.append(model.means_, model.weights_)
    assert np.all((low <= estimate) & (estimate <= high))
    assert low[2:].min() >= 0
    assert high[2:].max() <= 1
    wald = flat(model.intervals(x, noise_std=s, kind="fisher"))
    assert np.any((wald[0][2:] < 0) | (wald[1][2:] > 1) | (np.abs(wald[0] - low)[2:] > 0.01))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("law", "levels", "shares"),
    [
        (separated_law(2), (1.0,), (1.0,)),
        (scaled(hard_pair(2)[0], 1.0), (1.0,), (1.0,)),
        (separated_law(2), (1.0, 2.5), (0.1, 0.9)),
        (separated_law(3), (1.0,), (1.0,)),
    ],
    ids=["separated", "hard", "mixed", "three"],
)
def test_ninety_per_cent_intervals_cover_ninety_per_cent_within_four_points(law, levels, shares):
    order, reps = np.argsort(law.line()), 300
    truth = np.append(law.line()[order], law.weights[order])
    inside, narrow = [], []
    for rep in range(reps):
        rng = np.random.default_rng([rep, law.k, len(levels)])
        s = rng.choice(levels, 2000, p=shares)
        x = law.sample(s, rng)
        model = HeteroscedasticMixture(law.k, random_state=0).fit(x, noise_std=s)
        low, high, _ = flat(model.intervals(x, noise_std=s))
        inside.append((low <= truth) & (truth <= high))
        middle, half = (low + high) / 2, (high - low) / 4
        narrow.append(np.abs(truth - middle) <= half)
    slack = 2 * np.sqrt(0.9 * 0.1 / reps)
    assert np.abs(np.mean(inside, axis=0) - 0.9).max() < 0.04 + slack
    assert np.mean(narrow, axis=0).max() < 0.9 - 0.04 - slack  # the control: intervals of half the width


@pytest.mark.slow
@pytest.mark.parametrize(
    ("law", "levels", "shares"),
    [(scaled(hard_pair(2)[0], 1.0), (1.0,), (1.0,)), (separated_law(2), (1.0, 2.5), (0.1, 0.9))],
    ids=["hard", "mixed"],
)
def test_bootstrap_intervals_of_moments_cover_ninety_per_cent_within_four_points(law, levels, shares):
    """The mean over atoms and weights, with the standard error of that mean over samples; half the width must fail."""
    order, reps = np.argsort(law.line()), 300
    truth = np.append(law.line()[order], law.weights[order])
    inside, narrow = [], []
    for rep in range(reps):
        rng = np.random.default_rng([rep, 11])
        s = rng.choice(levels, 600, p=shares)
        x = law.sample(s, rng)
        model = HeteroscedasticMixture(law.k, method="dmm").fit(x, noise_std=s)
        low, high, _ = flat(model.intervals(x, noise_std=s, n_boot=99, random_state=rep))
        inside.append(np.mean((low <= truth) & (truth <= high)))
        narrow.append(np.mean(np.abs(truth - (low + high) / 2) <= (high - low) / 4))
    slack = 2 * np.std(inside, ddof=1) / np.sqrt(reps)
    assert abs(np.mean(inside) - 0.9) < 0.04 + slack
    assert np.mean(narrow) < 0.9 - 0.04 - slack


@pytest.mark.parametrize(("k", "radius", "levels"), [(1, None, (1.0,)), (2, None, (0.5, 2.0)), (3, 20.0, (0.9, 1.2))])
def test_a_bootstrap_of_moments_makes_the_fits_of_the_estimator(k, radius, levels):
    """Samples drawn with the same generator, each fitted by itself; levels of noise are shared alike."""
    x, s = drawn(200, law=separated_law(k), levels=levels)
    s = s * np.exp(0.3 * np.random.default_rng(1).standard_normal(200)) if k == 3 else s
    model = HeteroscedasticMixture(k, method="dmm", radius=radius).fit(x + 5, noise_std=s)
    found = moment_refits(model, s, 3, np.random.default_rng(2))
    rng, atoms = np.random.default_rng(2), model.means_[:, 0]
    again = atoms[rng.choice(k, size=(3, 200), p=model.weights_)] + s * rng.standard_normal((3, 200))
    for j, row in enumerate(again):
        one = HeteroscedasticMixture(k, method="dmm", radius=radius).fit(row[:, None], noise_std=s)
        np.testing.assert_allclose(found.atoms[j], one.means_[:, 0], rtol=1e-7)
        np.testing.assert_allclose(found.weights[j], one.weights_, rtol=1e-6)


def test_the_ends_of_a_bootstrap_are_ranks_that_a_new_draw_falls_below_with_their_chance():
    """Of 199 draws 1..199 the 10th and the 190th, of 19 the first and the last; a draw below the estimate less moves
    both ends by 2 z0."""
    _, low, high = bias_corrected(np.arange(1.0, 200.0)[:, None], np.array([100.0]), 0.9)
    assert (low[0], high[0]) == pytest.approx((10, 190))
    _, low, high = bias_corrected(np.arange(1.0, 20.0)[:, None], np.array([10.0]), 0.9)
    assert (low[0], high[0]) == pytest.approx((1, 19))
    z0, z = ndtri(79.5 / 199), ndtri(0.95)
    _, low, high = bias_corrected(np.arange(1.0, 200.0)[:, None], np.array([80.0]), 0.9)
    assert (low[0], high[0]) == pytest.approx((200 * ndtr(2 * z0 - z), 200 * ndtr(2 * z0 + z)))


def test_an_estimated_noise_widens_intervals_by_what_it_moves_the_law():
    """Squares add: the spread at the noise that is known, and the law's derivative by log s times the error of it. The
    error is set far above that of any estimate, so that 60 draws show it."""
    law = AtomicLaw(np.outer([-1, 1], np.eye(2)[0]), [0.3, 0.7])
    x, s = drawn(300, law=law, levels=(1.0,))
    model = HeteroscedasticMixture(method="dmm", random_state=0).fit(x, noise_std=s)
    error, step = 0.2, 0.05
    around = [model.fit(x, noise_std=np.exp(side * step) * s).means_[:, 0] for side in (-1, 1)]
    moved = error * (around[1] - around[0]) / (2 * step)
    model.fit(x, noise_std=s)
    known, unknown = (
        model.intervals(x, noise_std=s, n_boot=60, noise_error=e).means_stderr[:, 0] for e in (0.0, error)
    )
    assert np.all(unknown > 1.5 * known)
    assert np.abs(np.log(unknown / np.hypot(known, moved))).max() < 4 * np.sqrt(2 / (2 * 59))


def test_bootstrap_intervals_of_moments_have_the_width_of_their_spread():
    """The standard deviation of dmm over fresh samples, against what one sample's bootstrap says."""
    fresh = []
    for seed in range(60):
        x, s = drawn(1500, seed)
        fresh.append(
            np.append(*(lambda m: (m.means_, m.weights_))(HeteroscedasticMixture(method="dmm").fit(x, noise_std=s)))
        )
    x, s = drawn(1500, 99)
    model = HeteroscedasticMixture(method="dmm").fit(x, noise_std=s)
    u = model.intervals(x, noise_std=s, n_boot=60)
    assert u.kind == "bootstrap"
    ratio = flat(u)[2] / np.std(fresh, axis=0, ddof=1)
    error = np.sqrt(2 * 1 / (2 * 59))  # of the logarithm of a ratio of two deviations of 60 draws
    assert np.abs(np.log(ratio)).max() < 4 * error


def test_bootstrap_errors_in_space_are_those_of_known_labels_where_atoms_are_far_apart():
    law = AtomicLaw(np.outer([-3, 3], np.eye(3)[0]))
    x, s = drawn(400, law=law)
    model = HeteroscedasticMixture(random_state=0).fit(x, noise_std=s)
    u = model.intervals(x, noise_std=s, n_boot=20)
    assert u.means_low.shape == (2, 3)
    known = 1 / np.sqrt(np.sum(s**-2.0) / 2)  # of each coordinate of an atom that half of the samples show
    error = 1 / np.sqrt(2 * 19)  # of the logarithm of a deviation of 20 draws
    assert np.abs(np.log(u.means_stderr[:, 0] / known)).max() < 4 * error
    assert np.all(np.abs(model.means_ - law.atoms) < 4 * u.means_stderr)
    with pytest.raises(UsageError, match="use kind='bootstrap'"):
        model.intervals(x, noise_std=s, kind="fisher")


def test_atoms_are_matched_to_the_nearest_altogether():
    atoms, weights = matched(np.array([[5.0], [0.0]]), np.array([0.3, 0.7]), np.array([[0.1], [4.0]]))
    assert atoms.ravel().tolist() == [0.0, 5.0]
    assert weights.tolist() == [0.7, 0.3]
    atoms, _ = matched(np.array([[3.0], [1.1]]), np.array([0.5, 0.5]), np.array([[-0.5], [1.0]]))
    assert atoms.ravel().tolist() == [1.1, 3.0]  # sums of distances are equal here


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"level": 1.2}, "between 0 and 1"),
        ({"kind": "magic"}, "unknown kind"),
        ({"kind": "bootstrap", "n_boot": 0}, "n_boot"),
        ({"kind": "bootstrap", "n_boot": 18}, "18 bootstrap samples are too few for intervals of level 0.9: give 19"),
        ({"kind": "bootstrap", "level": 0.95, "n_boot": 38}, "give 39 or more"),
        ({"kind": "bootstrap", "noise_error": np.inf}, "finite number >= 0"),
        ({"kind": "fisher", "noise_error": 0.1}, "take the noise as known"),
        ({"kind": "bootstrap", "sample_weight": np.ones(60)}, "without weights"),
    ],
)
def test_bad_questions_get_a_sentence(options, words):
    x, s = drawn(60)
    model = HeteroscedasticMixture(random_state=0).fit(x, noise_std=s)
    with pytest.raises(UsageError, match=words):
        model.intervals(x, noise_std=s, **options)


def test_numbers_of_numpy_are_numbers():
    x, s = drawn(60)
    model = HeteroscedasticMixture(random_state=0).fit(x, noise_std=s)
    asked = {"level": np.float32(0.5), "n_boot": np.int64(9), "noise_error": np.float64(0.01)}
    assert model.intervals(x, noise_std=s, kind="bootstrap", **asked).level == 0.5


def test_the_most_likely_of_all_laws_has_neither_intervals_nor_a_number_of_atoms():
    x, s = drawn(60)
    model = HeteroscedasticMixture(method="npmle").fit(x, noise_std=s)
    for kind in (None, "likelihood", "fisher", "bootstrap"):
        with pytest.raises(UsageError, match="no fixed number of atoms"):
            model.intervals(x, noise_std=s, kind=kind)
    for question in (model.aic, model.bic):
        with pytest.raises(UsageError, match="no fixed number of atoms"):
            question(x, noise_std=s)
    for test in (number_of_components, likelihood_ratio_test):
        with pytest.raises(UsageError, match="no fixed number of atoms"):
            test(model, x, s)


# ------------------------------------------------------------------------------------------- the number of atoms


@pytest.mark.parametrize("k", [1, 2, 3])
def test_bic_finds_the_number_of_atoms(k):
    x, s = drawn(1500, law=separated_law(k), levels=(1.0,))
    table = number_of_components(HeteroscedasticMixture(random_state=0), x, s, (1, 2, 3, 4))
    assert min(table, key=lambda c: c.bic).k == k
    for row in table:
        assert row.bic - row.aic == pytest.approx((2 * row.k - 1) * (np.log(1500) - 2))
    assert np.all(np.diff([row.log_likelihood for row in table]) > -1e-6)


@pytest.mark.slow
def test_the_bootstrapped_ratio_rejects_too_few_atoms_and_not_the_right_number():
    x, s = drawn(300, law=separated_law(2), levels=(1.0,))
    too_few = likelihood_ratio_test(HeteroscedasticMixture(1, random_state=0), x, s, n_boot=19)
    right = likelihood_ratio_test(HeteroscedasticMixture(2, random_state=0), x, s, n_boot=19)
    assert too_few.p == 1 / 20
    assert right.p > 0.1


# ------------------------------------------------------------------------------------------------ goodness of fit


def test_anderson_darling_is_that_of_the_definition():
    from scipy.stats import goodness_of_fit as of_scipy
    from scipy.stats import uniform

    u = np.random.default_rng(0).random(50)
    reference = of_scipy(uniform, u, known_params={"loc": 0, "scale": 1}, statistic="ad", n_mc_samples=2)
    assert anderson_darling(u) == pytest.approx(reference.statistic)


@pytest.mark.parametrize("d", [1, 4])
def test_wrong_noise_and_too_few_atoms_do_not_fit_and_the_truth_does(d):
    law = separated_law(2) if d == 1 else AtomicLaw(np.outer([-2, 2], np.eye(d)[0]), [1 / 3, 2 / 3])
    x, s = drawn(500, law=law, levels=(0.7, 1.5))
    ask = {"n_boot": 19, "random_state": 1}
    right = HeteroscedasticMixture(2, random_state=0).fit(x, noise_std=s)
    assert goodness_of_fit(right, x, s, **ask).p > 1 / 20
    wrong = HeteroscedasticMixture(2, random_state=0).fit(x, noise_std=1.3 * s)
    assert goodness_of_fit(wrong, x, 1.3 * s, **ask).p == 1 / 20
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        few = HeteroscedasticMixture(1, random_state=0).fit(x, noise_std=s)
    assert goodness_of_fit(few, x, s, **ask).p == 1 / 20


def test_goodness_is_asked_of_a_fit_and_of_samples_like_its_own():
    x, s = drawn(60)
    with pytest.raises(NotFittedError):
        goodness_of_fit(HeteroscedasticMixture(), x, s)
    model = HeteroscedasticMixture(random_state=0).fit(x, noise_std=s)
    for other in (x[:, 0], np.column_stack([x, x]), np.where(x > 0, x, np.nan)):
        with pytest.raises(ValueError, match=r"1D array|features|NaN"):
            goodness_of_fit(model, other, s)


def test_the_quantile_of_a_likelihood_interval_is_that_of_chi_square_with_one_degree_of_freedom():
    """The printed tables: 2.7055 for 90 %, 3.8415 for 95 %, 6.6349 for 99 %."""
    assert [one_number_quantile(p) for p in (0.9, 0.95, 0.99)] == pytest.approx([2.7055, 3.8415, 6.6349], abs=5e-5)
