"""Mean and standard error over replicates, against NumPy and by invariance."""

from __future__ import annotations

import numpy as np
import pytest

from ambient_theory.shared.replicates import mean_of_known, replicates


def test_mean_and_standard_error_are_those_of_numpy():
    x = np.random.default_rng(0).standard_normal(7)
    found = replicates(x)
    assert (found.mean, found.n) == (pytest.approx(x.mean(), rel=1e-14), 7)
    assert found.stderr == pytest.approx(x.std(ddof=1) / np.sqrt(7), rel=1e-14)


def test_one_value_has_no_standard_error_and_none_no_mean():
    assert (replicates([2.5]).mean, replicates([2.5]).stderr) == (2.5, None)
    with pytest.raises(ValueError, match="at least one"):
        replicates([])


def test_a_shift_moves_the_mean_and_not_the_error_even_where_digits_are_lost():
    small = replicates([0.0, 1.0, 2.0])
    moved = replicates([1e9, 1e9 + 1, 1e9 + 2])
    assert moved.mean == 1e9 + small.mean
    assert moved.stderr == pytest.approx(small.stderr, rel=1e-6)


def test_unknown_values_do_not_count_in_a_mean():
    assert mean_of_known([None, 1.0, 3.0]) == 2.0
    assert mean_of_known([None]) is None
