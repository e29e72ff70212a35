"""Fisher information, first-order risk, marginal worth."""

import math

import numpy as np
import pytest

from ambient_theory.mixtures.fisher import efficient_exchange_rate, first_order_risk, fisher_information, marginal_worth
from ambient_theory.mixtures.laws import AtomicLaw, hard_pair, scaled, separated_law
from ambient_theory.shared.errors import UsageError

PAIR = hard_pair(2)[0]


@pytest.mark.parametrize(("delta", "worth"), [(0.3, 0.0181), (2, 0.190), (4, 0.592), (12, 0.894)])
def test_marginal_worth_of_the_hard_pair(delta, worth):
    assert marginal_worth(scaled(PAIR, delta), 2.0) == pytest.approx(worth, abs=6e-4)


@pytest.mark.parametrize("k", [2, 3])
def test_marginal_worth_tends_to_the_bounds_weight_for_close_atoms_only(k):
    weight = 2.0 ** -(4 * k - 2)
    close, far = (marginal_worth(scaled(hard_pair(k)[0], delta), 2.0) for delta in (0.1, 12))
    assert close == pytest.approx(weight, rel=0.03)
    assert far > 0.85


def test_one_atom_is_mean_estimation():
    law = AtomicLaw([0.3])
    assert fisher_information(law, 1.7)[0, 0] == pytest.approx(1.7**-2)
    assert marginal_worth(law, 3.0, 1.5) == pytest.approx(0.25)
    assert first_order_risk(law, [1, 2], [10, 40]) == pytest.approx(math.sqrt(2 / math.pi / 20))


def test_well_separated_atoms_estimate_as_if_labels_were_known():
    law = AtomicLaw([-50, 50], [0.3, 0.7])
    expected = np.diag([0.3, 0.7, 1 / 0.3 + 1 / 0.7])  # each atom its own share, the weight a binomial
    np.testing.assert_allclose(fisher_information(law, 1.0), expected, atol=1e-9)


def test_gradient_of_the_risk_is_its_finite_difference():
    law, n, h = separated_law(2, gap=2.0), np.array([1000.0, 500.0]), 1e-3

    def risk(dn):
        return first_order_risk(law, [1, 2], n + dn)

    clean = (risk([h, 0]) - risk([-h, 0])) / (2 * h)
    noisy = (risk([0, h]) - risk([0, -h])) / (2 * h)
    assert marginal_worth(law, 2.0, 1.0, *n) == pytest.approx(noisy / clean, rel=1e-4)


def test_equal_error_rate_tends_to_the_marginal_worth_for_few_noisy_samples():
    law = scaled(PAIR, 2.0)
    assert efficient_exchange_rate(law, 2.0, 1e6, 1) == pytest.approx(marginal_worth(law, 2.0), rel=1e-3)
    n, m = 1000, 5000
    c = efficient_exchange_rate(law, 2.0, n, m)
    assert first_order_risk(law, [1, 2], [n, m]) == pytest.approx(first_order_risk(law, 1, n + c * m))


def test_degenerate_laws_are_refused():
    with pytest.raises(UsageError, match="distinct atoms"):
        marginal_worth(AtomicLaw([1, 1]), 2.0)
    with pytest.raises(UsageError, match="n_noisy > 0"):
        efficient_exchange_rate(PAIR, 2.0, 10, 0)
