"""What the simulator must reproduce: slopes, transfer at equal n_l, negative controls, the floor. Slow.

Tolerances: the stated bar, with replicates chosen so that the standard error is at most a third of it.
"""

from dataclasses import replace

import numpy as np
import pytest

from ambient_theory.bounds import sizes as bounds
from ambient_theory.mixtures.fisher import first_order_risk
from ambient_theory.mixtures.laws import AtomicLaw
from ambient_theory.simulation.cells import in_plan_order, run_cell, simulate
from ambient_theory.simulation.envelope import worst_of_grid
from ambient_theory.simulation.grid import SimulationConfig, plan
from ambient_theory.simulation.slopes import slope_table

pytestmark = pytest.mark.slow


def rows_of(**options):
    planned = plan(SimulationConfig(**options))
    assert planned.skipped == ()
    return in_plan_order(planned.cells, simulate(planned.cells))


def at(rows, **key):
    (row,) = [r for r in rows if all(r[c] == v for c, v in key.items())]
    return row


@pytest.mark.parametrize("k", [1, 2, 3])
def test_separated_slopes_are_minus_one_half(k):
    rows = rows_of(k=(k,), families=("separated",), n=(10**4, 10**5, 10**6, 10**7, 10**8), reps=600)
    for slope in slope_table(rows):
        if slope.estimator == "dmm":
            assert slope.slope == pytest.approx(-0.5, abs=0.02)
        elif k > 1:
            assert slope.slope == pytest.approx(0, abs=1e-3)  # one atom never learns


@pytest.mark.parametrize("s", [1.5, 2.0])
def test_equal_n_l_transfers_on_the_hard_family_and_not_on_the_separated_one(s):
    n_l, reps = 10**6, 4000
    sizes = {"clean": n_l, "noisy": round(n_l * s**6)}
    share = 1 / (1 + s**6)  # half of n_l from each
    mixes = {"clean": "clean", "noisy": "noisy", "both": f"{share}:{1 - share}"}
    sizes["both"] = round(n_l / (share + (1 - share) * s**-6))
    risk = {}
    for family in ("hard", "separated"):
        for name, mix in mixes.items():
            rows = rows_of(families=(family,), mixes=(mix,), n=(sizes[name],), s_noisy=s, reps=reps)
            assert rows[0]["n_l"] == pytest.approx(n_l, rel=1e-5)
            risk[family, name] = at(rows, estimator="dmm")
            if family == "hard":
                assert risk[family, name]["w1_mean"] < 0.6 * at(rows, estimator="mean-only")["w1_mean"]
    for name in ("noisy", "both"):
        ratio = risk["hard", name]["w1_mean"] / risk["hard", "clean"]["w1_mean"]
        assert ratio == pytest.approx(1, abs=0.08)
        ratio = risk["separated", name]["w1_mean"] / risk["separated", "clean"]["w1_mean"]
        assert ratio < 0.85  # the second negative control: more samples do help where atoms are apart


def test_envelope_has_the_worst_case_slope_and_one_atom_has_none():
    rows = rows_of(families=("envelope",), mixes=("clean",), n=(10**3, 10**5, 10**7, 10**9), reps=400)
    kept, skipped = worst_of_grid(rows)
    assert skipped == []
    slopes = {s.estimator: s for s in slope_table(kept)}
    assert -0.20 < slopes["dmm"].slope < -0.15  # -1/6 as n grows, steeper before
    assert slopes["mean-only"].slope == pytest.approx(0, abs=0.01)


def test_strong_subspace_slope_is_minus_one_half_and_the_direction_is_found():
    d, sizes = 20, (1000, 10_000, 100_000, 1_000_000)
    rows = rows_of(dim=d, families=("pca-strong",), mixes=("clean",), n=sizes, reps=100, estimators=("dmm",))
    (slope,) = slope_table(rows)
    assert slope.slope == pytest.approx(-0.5, abs=0.03)
    for row in rows:
        lam, half = 9.0, row["n"] / 2
        miss = (d - 1) * (lam + 1) / (half * lam**2)
        assert 1 - row["overlap"] == pytest.approx(miss, rel=5 * np.sqrt(2 / (d - 1) / 100) + 3 * miss)


def test_weak_subspace_is_missed_and_mean_only_shows_the_same_slope():
    rows = rows_of(dim=50, families=("pca-hard",), mixes=("clean",), n=(10**4, 10**5, 10**6), reps=40)
    slopes = {s.estimator: s for s in slope_table(rows)}
    assert slopes["mean-only"].slope == pytest.approx(-0.25, abs=0.02)  # built in: the slope alone proves nothing
    assert all(r["overlap"] < 0.6 for r in rows)


def test_gls_uses_noisy_samples_where_they_help_and_pooling_hurts():
    options = {"families": ("separated",), "mixes": ("10:90",), "s_noisy": 3.0, "n": (100_000,), "reps": 2000}
    rows = rows_of(**options, estimators=("dmm", "clean-only"), weights=("gls", "sigma", "none"))
    gls = at(rows, estimator="dmm", weights="gls")
    clean = at(rows, estimator="clean-only", weights="gls")
    pooled = at(rows, estimator="dmm", weights="none")
    noise = np.hypot(gls["w1_se"], clean["w1_se"])
    assert clean["w1_mean"] - gls["w1_mean"] > 5 * noise
    assert gls["w1_mean"] < 0.95 * clean["w1_mean"]
    assert pooled["w1_mean"] > 1.3 * clean["w1_mean"]


def test_gls_is_not_worse_than_clean_only_on_the_hard_family():
    options = {"families": ("hard",), "mixes": ("10:90",), "s_noisy": 3.0, "n": (10**7,), "reps": 4000}
    rows = rows_of(**options, estimators=("dmm", "clean-only"))
    ratio = at(rows, estimator="dmm")["w1_mean"] / at(rows, estimator="clean-only")["w1_mean"]
    assert ratio == pytest.approx(1, abs=0.05)


def test_without_noise_the_weights_still_cost_their_floor():
    law, s, n = AtomicLaw([-0.6, 0.5], [0.4, 0.6]), 0.005, 10**5
    options = {"families": ("fixed",), "atoms": "-0.6:0.4,0.5:0.6", "mixes": ("clean",), "s_clean": s, "s_noisy": 1.0}
    rows = rows_of(**options, n=(n,), radius=1.0, bins=1200, reps=3000)
    row = at(rows, estimator="dmm")
    assert row["w1_mean"] == pytest.approx(first_order_risk(law, s, n), abs=4 * row["w1_se"])
    assert row["w1_mean"] == pytest.approx(0.00138, abs=1e-4)
    raw = n * s**-6
    assert raw ** -bounds.lowdim_exponent(2) == pytest.approx(0.00073, abs=1e-5)  # the raw formula, far too low


def test_sheppards_correction_shows_at_large_n():
    config = {"families": ("separated",), "mixes": ("clean",), "n": (10**12,), "reps": 200, "estimators": ("dmm",)}
    fine, coarse = (at(rows_of(**config, bins=bins), estimator="dmm") for bins in (2000, 120))
    assert coarse["w1_mean"] == pytest.approx(fine["w1_mean"], abs=5 * np.hypot(fine["w1_se"], coarse["w1_se"]))


@pytest.mark.parametrize("weights", ["order", "sigma", "none"])
def test_every_weight_is_consistent(weights):
    rows = rows_of(families=("separated",), mixes=("10:90",), n=(10**4, 10**6, 10**8), reps=300, weights=(weights,))
    (slope,) = [s for s in slope_table(rows) if s.estimator == "dmm"]
    assert slope.slope == pytest.approx(-0.5, abs=0.04)


def test_the_hard_slope_is_steeper_than_theory_at_finite_n_and_dmm_stays_below_one_atom():
    rows = rows_of(families=("hard",), mixes=("clean",), n=(10**3, 10**5, 10**7, 10**9), reps=1500)
    slopes = {s.estimator: s for s in slope_table(rows)}
    assert -0.20 < slopes["dmm"].slope < -1 / 6
    assert slopes["dmm"].against_mean_only[2] < 0.6
    assert slopes["mean-only"].slope == pytest.approx(-1 / 6, abs=0.002)


def test_binned_and_exact_cells_agree():
    config = SimulationConfig(families=("hard",), mixes=("10:90",), n=(2000,), reps=400)
    (cell,) = plan(config).cells
    binned, exact = (run_cell(replace(cell, engine=e))["rows"][0] for e in ("binned", "exact"))
    noise = np.hypot(binned["w1_se"], exact["w1_se"])
    assert binned["w1_mean"] == pytest.approx(exact["w1_mean"], abs=4 * noise)
