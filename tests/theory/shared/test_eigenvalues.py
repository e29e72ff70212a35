"""Eigenvalues of noise as records keep them: few numbers that say what many did, and v(s) of the noise models."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ambient_theory.shared.eigenvalues import WHITE, Eigenvalues
from ambient_theory.shared.errors import DataError

RNG = np.random.default_rng(3)
KINDS = {
    "lognormal map": np.exp(RNG.normal(0, 1, 4096)),
    "ramp": np.linspace(0.3, 3, 1024) ** 2,
    "two values": np.repeat([0.5, 1.5], 100),
    "zeros among them": np.maximum(RNG.normal(0.5, 1, 500), 0),
}


def exact(values: np.ndarray, sigma_n: float, s: float) -> float:
    """Mean of lambda sigma^2 s^2/(s^2 - lambda sigma^2) over all of them."""
    own = values / values.mean() * sigma_n**2
    return float(np.mean(own * s**2 / (s**2 - own)))


@pytest.mark.parametrize("kind", KINDS)
def test_few_numbers_keep_level_mean_and_scatter(kind: str) -> None:
    values = KINDS[kind]
    kept = Eigenvalues.of(values)
    assert len(kept.values) <= 32
    assert sum(kept.shares) == pytest.approx(1)
    assert np.dot(kept.values, kept.shares) == pytest.approx(1)
    lowest = 0.4 * math.sqrt(values.max() / values.mean())
    assert kept.lowest_level(0.4) == pytest.approx(lowest, rel=1e-12)
    for ratio, within in ((1.05, 0.01), (1.3, 0.002), (10, 1e-3)):
        assert float(kept.excess_scatter(0.4, lowest * ratio)) == pytest.approx(
            exact(values, 0.4, lowest * ratio), rel=within
        )
    assert math.isinf(kept.excess_scatter(0.4, lowest))
    # white noise of the same strength is another thing near its level (control)
    assert float(WHITE.excess_scatter(0.4, lowest * 1.05)) != pytest.approx(exact(values, 0.4, lowest * 1.05), rel=0.1)


def test_white_noise_is_the_formula_to_the_last_digit() -> None:
    s = np.geomspace(0.05, 5, 40)
    above = s > 0.3
    expected = np.where(above, 0.3**2 * s**2 / np.where(above, s**2 - 0.3**2, 1.0), np.inf)
    assert np.array_equal(WHITE.excess_scatter(0.3, s), expected)
    assert np.array_equal(WHITE.excess_scatter(0.0, s), np.zeros(40))


def test_weights_count_eigenvalues() -> None:
    weighted, listed = Eigenvalues.of([2.0, 6.0], [3.0, 1.0]), Eigenvalues.of([2.0, 2.0, 2.0, 6.0])
    assert float(weighted.excess_scatter(0.5, 2.0)) == pytest.approx(float(listed.excess_scatter(0.5, 2.0)), rel=1e-12)
    assert Eigenvalues.of([4.0, 1.0, 9.0], [1.0, 1.0, 0.0]).values == pytest.approx((0.4, 1.6))


def test_lists_come_back() -> None:
    kept = Eigenvalues.of(KINDS["ramp"])
    again = Eigenvalues.from_lists(json.loads(json.dumps(kept.to_lists())), "here")
    assert again.values == pytest.approx(kept.values, rel=1e-5)
    assert again.shares == pytest.approx(kept.shares, rel=1e-5)


@pytest.mark.parametrize(
    "found",
    [None, 1, [], [[1.0]], [[1.0], [1.0, 2.0]], [["a"], [1.0]], [[1.0], [0.0]], [[0.0], [1.0]], [[math.nan], [1.0]],
     [[math.inf], [1.0]], [[True], [1.0]], [[-1.0], [1.0]], [[1.0] * 20_000, [1.0] * 20_000], {"values": [1]}],
)  # fmt: skip
def test_anything_else_is_refused_with_its_place(found: object) -> None:
    with pytest.raises(DataError, match=r"^here: eigenvalues"):
        Eigenvalues.from_lists(found, "here")


def test_the_mean_of_several_counts_each_once() -> None:
    a, b = Eigenvalues.of([1.0, 3.0]), Eigenvalues.of([1.0, 1.0])
    assert Eigenvalues.mean([a, a]) == a
    assert Eigenvalues.mean([a, b]).lowest_level(1.0) == pytest.approx(math.sqrt(1.5))
