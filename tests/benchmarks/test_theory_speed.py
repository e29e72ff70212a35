"""Speed and memory of the theory side. Run with `make bench`; nothing here asserts a time.

scikit-learn's GaussianMixture is timed on the same data for orientation only: it fits *another model* (free variances,
one noise for all samples) and knows nothing of s_i.
"""

import tracemalloc

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from ambient_theory.mixtures.estimators import HeteroscedasticMixture
from ambient_theory.mixtures.laws import AtomicLaw, embed
from ambient_theory.mixtures.subspace import weighted_subspace
from ambient_theory.simulation.cells import run_cell
from ambient_theory.simulation.grid import SimulationConfig, plan

LAW = AtomicLaw([-2.0, 2.0], [0.3, 0.7])


def samples(n, seed=0):
    """(n, 1) samples, a tenth with s = 1 and the rest with s = 2, drawn in place to keep the peak low."""
    rng = np.random.default_rng(seed)
    s = np.where(rng.random(n) < 0.1, 1.0, 2.0)
    x = rng.standard_normal(n)
    x *= s
    x += LAW.line()[(rng.random(n) < 0.7).astype(np.int8)]
    return x[:, None], s


def timed(benchmark, function, rounds=3):
    """Time it, then run once more under tracemalloc for the peak of what it allocates (MiB)."""
    result = benchmark.pedantic(function, rounds=rounds, warmup_rounds=1)
    tracemalloc.start()
    function()
    benchmark.extra_info["peak_mib"] = round(tracemalloc.get_traced_memory()[1] / 2**20, 1)
    tracemalloc.stop()
    return result


@pytest.mark.parametrize("n", [10**6, 10**7])
def test_dmm(benchmark, n):
    x, s = samples(n)
    model = timed(benchmark, lambda: HeteroscedasticMixture().fit(x, noise_std=s))
    assert model.diagnostics_.n == n


def test_dmm_one_noise_level(benchmark):
    x, _ = samples(10**7)
    timed(benchmark, lambda: HeteroscedasticMixture().fit(x, noise_std=1.9))


def test_dmm_streaming_in_chunks_of_a_million(benchmark):
    x, s = samples(10**7)

    def stream():
        model = HeteroscedasticMixture()
        for start in range(0, len(x), 10**6):
            model.partial_fit(x[start : start + 10**6], noise_std=s[start : start + 10**6])
        return model

    assert timed(benchmark, stream).diagnostics_.n == 10**7


@pytest.mark.parametrize("method", ["mle", "em", "npmle"])
def test_likelihood_methods(benchmark, method):
    x, s = samples(10**6)
    timed(benchmark, lambda: HeteroscedasticMixture(method=method, n_init=1, random_state=0).fit(x, noise_std=s))


def test_gaussian_mixture_of_scikit_learn_another_model(benchmark):
    x, _ = samples(10**6)
    timed(benchmark, lambda: GaussianMixture(2, random_state=0).fit(x), rounds=1)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("family", ["separated", "hard"])
def test_replicates(benchmark, k, family):
    config = SimulationConfig(k=(k,), families=(family,), mixes=("10:90",), n=(10**7,), estimators=("dmm",))
    (cell,) = plan(config).cells
    benchmark.pedantic(lambda: run_cell(cell), rounds=3, warmup_rounds=1)
    benchmark.extra_info["replicates_per_s"] = round(config.reps / benchmark.stats["mean"])


@pytest.mark.parametrize(("n", "d"), [(20_000, 100), (5000, 2000), (300, 20_000)])
def test_weighted_subspace(benchmark, n, d):
    rng = np.random.default_rng(0)
    s = rng.choice([1.0, 2.0], n)
    x = embed(LAW, d).sample(s, rng)
    timed(benchmark, lambda: weighted_subspace(x, s, 1, rng), rounds=2)
