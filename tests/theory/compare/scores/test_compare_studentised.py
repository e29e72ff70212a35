"""The studentised range: against its closed form for two means, and against SciPy's quadrature."""

from __future__ import annotations

import math

import pytest
from scipy import special, stats

from ambient_theory.compare.scores.studentised import studentised_cdf, studentised_quantile


@pytest.mark.parametrize("dof", [1, 2, 7, 60, 5000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_range_of_two_means_is_students_t_times_root_two(confidence: float, dof: int) -> None:
    expected = math.sqrt(2) * float(special.stdtrit(dof, 0.5 + confidence / 2))
    assert studentised_quantile(confidence, 2, dof) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("means", "dof"), [(3, 5), (13, 52), (40, 200)])
def test_quantiles_are_scipys(means: int, dof: int) -> None:
    q = studentised_quantile(0.95, means, dof)
    assert float(stats.studentized_range.cdf(q, means, dof)) == pytest.approx(0.95, abs=1e-9)
    assert studentised_cdf(1.01 * q, means, dof) > 0.9505 > 0.9495 > studentised_cdf(0.99 * q, means, dof)
