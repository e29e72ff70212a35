"""Quantiles of the studentised range: the closed form for two means, and SciPy's own integration."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from scipy import stats

from ambient_theory.compare.fitting.studentised import quantile


@pytest.mark.parametrize("dof", [1, 2, 7, 40, 1000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_range_of_two_means_is_root_two_times_student_t(confidence: float, dof: int) -> None:
    t = stats.t.ppf(0.5 + confidence / 2, dof)
    assert quantile(confidence, 2, dof) == pytest.approx(math.sqrt(2) * t, rel=1e-7)


@pytest.mark.parametrize(("means", "dof"), [(3, 1), (3, 10), (12, 24), (60, 3), (60, 200)])
def test_quantiles_are_those_of_scipy(means: int, dof: int) -> None:
    found = quantile(0.95, means, dof)
    assert found == pytest.approx(float(stats.studentized_range.ppf(0.95, means, dof)), rel=1e-6)
    assert quantile(0.95, means + 1, dof) > found > quantile(0.95, means, dof + 1)


def test_the_page_is_made_without_scipy_stats() -> None:
    code = "import sys, ambient_theory.compare.page.build, ambient_theory.compare.scores.prices as p; "
    code += "p._studentised(0.95, 5, 10); assert 'scipy.stats' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
