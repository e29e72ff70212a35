"""Restored counts: averages in counts are not the way back of averages of what they are transformed to."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ambient_train.data.anscombe import Anscombe
from ambient_train.data.place import Counts
from ambient_train.data.values import ValueMap
from ambient_train.diffusion.restore import Posterior, summary
from ambient_train.tasks.restore_counts import in_counts


@pytest.mark.parametrize("median", [0.5, 2.0, 10.0])
def test_a_perfect_network_keeps_the_total_of_counts(median: float) -> None:
    """Lognormal brightness v, counts k given v, and the exact posterior of v given k: its mean of the transformed, and
    39 samples. The mean over pixels of (restored - v) is 0 within its standard error."""
    n, samples, values = 30_000, 39, ValueMap(0.0, 50.0, "float32", "npy", Counts(1.0))
    rng, line = np.random.default_rng(0), Anscombe(1.0)
    grid = median * np.exp(np.linspace(-5, 5, 1001))
    prior = np.exp(-(np.linspace(-5, 5, 1001) ** 2) / 2)
    v = rng.choice(grid, n, p=prior / prior.sum())
    k = rng.poisson(v)
    mean, drawn = np.empty(n), np.empty((n, samples))
    for count in np.unique(k):
        here = np.flatnonzero(k == count)
        weight = prior * stats.poisson.pmf(count, grid)
        law = weight / weight.sum()
        mean[here] = law @ line.mean(grid)
        drawn[here] = line.mean(rng.choice(grid, (len(here), samples), p=law))
    x, xs = (
        (t / values.unit - 1 - float(line.forward(0.0)) / values.unit).astype(np.float32).reshape(n, *more, 1, 1, 1)
        for t, more in ((mean, ()), (drawn, (samples,)))
    )
    found = in_counts(Posterior(x, xs, *summary(xs)), values)

    def off(restored: np.ndarray) -> float:
        error = restored.reshape(n) - v
        return float(error.mean() / (error.std() / n**0.5))

    assert abs(off(found["images"])) < 4
    assert abs(off(found["sample_mean"])) < 4
    assert off(values.to_values(x)) < -4.5  # the control: the way back of the transformed mean
    assert off(values.to_values(xs.mean(1))) < -4.5
    np.testing.assert_allclose(found["std"], values.to_values(xs).std(1, ddof=1), rtol=1e-4)
