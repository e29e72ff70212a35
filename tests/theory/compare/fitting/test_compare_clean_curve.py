"""The clean-only curve and its inverse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ambient_theory.compare.fitting.clean_curve import BELOW, BEYOND, INSIDE, CleanCurve


def test_the_curve_passes_its_nodes_and_its_inverse_returns_to_them():
    x, y = np.log([100.0, 200, 400, 800]), np.array([3.0, 2.2, 1.9, 1.1])
    curve = CleanCurve.of(x, y, np.ones(4))
    assert curve(x) == pytest.approx(y)
    for at in np.linspace(x[0], x[-1], 23):
        assert curve.invert(float(curve(np.array([at]))[0]))[0] == pytest.approx(at, abs=1e-9)


def test_the_curve_never_rises_with_clean_images_even_where_the_means_do():
    x, y = np.log([100.0, 200, 400, 800]), np.array([3.0, 2.0, 2.3, 1.1])
    curve = CleanCurve.of(x, y, np.ones(4))
    assert np.all(np.diff(curve(curve.grid)) <= 1e-12)
    assert curve.y[1] == curve.y[2] == pytest.approx(2.15)  # pooled neighbours


def test_outside_the_clean_sizes_there_is_no_estimate():
    curve = CleanCurve.of(np.log([100.0, 200]), np.array([3.0, 2.0]), np.ones(2))
    assert curve.invert(3.1) == (-math.inf, BELOW)
    assert curve.invert(1.9) == (math.inf, BEYOND)
    assert curve.invert(3.0)[1] == curve.invert(2.0)[1] == INSIDE
