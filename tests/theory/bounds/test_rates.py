"""The symbolic rates: what each statement carries, and that the numbers agree with the numeric code."""

import math

import pytest

from ambient_theory.bounds import rates
from ambient_theory.bounds import sizes as bounds
from ambient_theory.bounds.laws import law_named, lowdim
from ambient_theory.shared.errors import UsageError


def test_every_statement_names_source_grade_regime_and_symbols():
    assert len({s.name for s in rates.STATEMENTS}) == len(rates.STATEMENTS)
    for statement in rates.STATEMENTS:
        assert statement.source
        assert statement.regime
        assert statement.grade in rates.GRADES
        assert statement.latex()
        assert statement.free_names() == set(statement.symbols)
    reconstructed = {s.name for s in rates.STATEMENTS if s.source == rates.AMBIENT}
    assert all(s.grade == "reconstructed" for s in rates.STATEMENTS if s.name in reconstructed)


def test_symbolic_and_numeric_rates_agree():
    levels, counts = [1.0, 2.0], [100, 900]
    log_term = {"delta": math.exp(-1)}
    sizes = {"n_d": bounds.n_d(levels, counts), "n_l": bounds.n_l(3, levels, counts)}
    expected = bounds.bound(3, 40, levels, counts, c_d=1.5, c_l=0.5, **log_term)
    assert rates.SUBSPACE_TERM(d=40, n_d=sizes["n_d"], C_d=1.5, **log_term) == pytest.approx(expected.pca)
    assert rates.HETEROSCEDASTIC(k=3, d=40, C_d=1.5, C_l=0.5, **sizes, **log_term) == pytest.approx(expected.total)
    counted = rates.N_COUNTED(n=3, R=1.5, s=[1, 2, 3])
    assert counted == pytest.approx(bounds.n_counted(1.5, [1, 2, 3]))
    assert rates.WEIGHT_FLOOR(R=1.5, N_eff=counted) == pytest.approx(bounds.bound(2, 1, [1, 2, 3], radius=1.5).floor)
    assert rates.C_LOW(k=3, sigma=0.4, s_0=0.9) == pytest.approx(lowdim(3).worth(0.4, 0.9))
    assert rates.N_L(n=3, k=2, s=[1, 2, 3]) == pytest.approx(bounds.n_l(2, [1, 2, 3]))
    assert rates.SEPARATED(n=1e6, k=3, k_0=3) == pytest.approx(1e6**-0.5)
    assert rates.SEPARATED(n=1e6, k=3, k_0=1) == pytest.approx(1e6 ** -bounds.lowdim_exponent(3))
    with pytest.raises(UsageError, match="needs"):
        rates.C_LOW(k=3)


def test_the_rate_of_a_direction_runs_from_fourth_to_second_power_of_the_noise():
    s = float(bounds.total_noise(2.0))
    weak, strong = (rates.C_SUBSPACE(**{"lambda": signal, "s": s, "s_0": 1}) for signal in (1e-9, 1e12))
    assert weak == pytest.approx(law_named("subspace").worth(2.0, 1.0))
    assert strong == pytest.approx(law_named("strong").worth(2.0, 1.0))


def test_every_formula_can_be_drawn_by_a_browser():
    for statement in rates.STATEMENTS:
        assert statement.mathml().startswith("<math>")
        assert statement.mathml().endswith("</math>")
