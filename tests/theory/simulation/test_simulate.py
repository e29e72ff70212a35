"""The simulator: seeding, ledger, plan, rows, slopes, exchange table, the command."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from ambient_theory.bounds import sizes as bounds
from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.reading import read_records
from ambient_theory.simulation import run
from ambient_theory.simulation.api import simulate as run_in_python
from ambient_theory.simulation.calibration import calibrate
from ambient_theory.simulation.cells import COLUMNS, in_plan_order, run_cell, simulate, to_records
from ambient_theory.simulation.collapse import collapse_table
from ambient_theory.simulation.envelope import worst_of_grid
from ambient_theory.simulation.exchange import ExchangeConfig, equal_error_rate, plan_exchange
from ambient_theory.simulation.grid import Mix, SimulationConfig, apportioned, noise_settings, parse_mix, plan
from ambient_theory.simulation.ledger import Ledger
from ambient_theory.simulation.options import parse_sizes
from ambient_theory.simulation.slopes import slope_table
from cli import app

SMALL = SimulationConfig(n=(1000, 10_000), reps=20, bins=150)
CELLS = plan(SMALL).cells


def test_results_depend_neither_on_order_nor_on_what_else_runs():
    forward = in_plan_order(CELLS, simulate(CELLS))
    backward = in_plan_order(CELLS, simulate(CELLS[::-1]))
    assert forward == backward
    alone = run_cell(CELLS[5])["rows"]
    assert alone == [r for r in forward if all(r[c] == alone[0][c] for c in ("family", "mix", "n"))]


@pytest.mark.multiproc
def test_results_do_not_depend_on_workers():
    assert in_plan_order(CELLS, simulate(CELLS, workers=2)) == in_plan_order(CELLS, simulate(CELLS))


def test_another_estimator_or_weight_changes_no_draw():
    cell = CELLS[0]
    rows = run_cell(cell)["rows"]
    more = run_cell(replace(cell, estimators=(("dmm", "order"), *cell.estimators)))["rows"]
    assert more[1:] == rows
    other_seed = run_cell(replace(cell, seed=1))["rows"]
    assert other_seed[0]["w1_mean"] != rows[0]["w1_mean"]


def test_finished_cells_are_not_run_again_and_damaged_ones_are(tmp_path):
    ledger = Ledger(tmp_path)
    first = list(simulate(CELLS[:3], ledger))
    again = list(simulate(CELLS[:4], ledger))
    assert [item.cached for item in again] == [True, True, True, False]
    assert [item.rows for item in again[:3]] == [item.rows for item in first]
    damaged = ledger.directory(CELLS[1]) / "result.json"
    damaged.write_text(damaged.read_text().replace("w1_mean", "w1_moan", 1))
    assert sum(not item.cached for item in simulate(CELLS[:4], ledger)) == 1
    assert ledger.load(CELLS[1]) is not None


def test_rows_have_the_documented_columns_and_the_bounds_numbers():
    row = run_cell(CELLS[-1])["rows"][0]
    assert set(row) == set(COLUMNS)
    assert (row["n_clean"], row["n_noisy"]) == (1000, 9000)
    assert row["n_l"] == pytest.approx(1000 + 9000 / 64)
    assert row["n_d"] == pytest.approx(1000 + 9000 / 16)
    assert row["bound"] == row["bound_pca"] + row["bound_low"] + row["bound_floor"]
    assert row["bound_low"] == pytest.approx(row["n_l"] ** (-1 / 6))
    assert row["bound_floor"] == pytest.approx(
        2 / np.sqrt(bounds.n_counted(2.0, row["sigmas"], [row["n_clean"], row["n_noisy"]]))
    )
    assert row["ratio"] == pytest.approx(row["w1_mean"] / row["bound"])


def test_records_carry_every_column():
    rows = run_cell(CELLS[-1])["rows"]
    record = to_records(rows)[0]
    assert (record.source, record.metric, record.extractor, record.reference) == ("simulate", "w1", "none", "truth")
    assert (record.dataset, record.n_eval, record.regime) == ("gmm-k2-hard", 20, "10:90")
    assert record.sigma_n == pytest.approx(3**0.5)  # s = 2 beside clean samples of s = 1
    assert record.value == rows[0]["w1_mean"]
    assert set(COLUMNS) <= set(record.extra)


@pytest.mark.parametrize("engine", ["wishart", "exact"])
def test_cells_in_space_report_the_overlap(engine):
    config = SimulationConfig(dim=4, families=("pca-strong",), n=(400,), mixes=("10:90",), reps=6, engine=engine)
    (cell,) = plan(config).cells
    dmm, control = run_cell(cell)["rows"]
    assert dmm["overlap"] > 0.8
    assert control["w1_mean"] == pytest.approx(3.0, rel=0.05)
    assert dmm["w1_mean"] < 0.4 * control["w1_mean"]


@pytest.mark.parametrize("estimator", ["mle", "em", "npmle"])
def test_likelihood_estimators_run_on_bin_counts(estimator):
    config = SimulationConfig(families=("separated",), n=(3000,), mixes=("clean",), reps=4, estimators=(estimator,))
    (row,) = run_cell(plan(config).cells[0])["rows"]
    assert row["w1_mean"] < 0.4


def test_cells_outside_the_ball_are_named_and_skipped():
    planned = plan(SimulationConfig(k=(3,), families=("hard",), mixes=("noisy",), n=(1000, 10**8)))
    assert len(planned.cells) == 1
    assert planned.skipped[0].name == "hard-k3-d1-noisy-n1000"
    assert "outside the ball of radius R = 2" in planned.skipped[0].reason
    # The pair at n = 30,000 has half-width 1.003: it fits a ball of radius 1.01 and not one of radius 1.
    hard = {"k": (3,), "families": ("hard",), "mixes": ("clean",), "n": (30_000,)}
    assert plan(SimulationConfig(**hard, radius=1.0)).cells == ()
    (inside,) = plan(SimulationConfig(**hard, radius=1.01)).cells
    assert 1.0 < inside.delta <= 1.01


def test_both_laws_of_the_hard_pair_are_drawn_and_delta_follows_n_l():
    cell = next(c for c in CELLS if c.family == "hard" and c.mix == "10:90")
    assert len(cell.laws) == 2
    n_l = bounds.n_l(2, cell.levels, cell.counts)
    from ambient_theory.mixtures.laws import hard_delta

    assert cell.delta == pytest.approx(hard_delta(2, n_l))


def test_envelope_keeps_the_worst_delta_and_names_those_at_the_end():
    base = {"family": "envelope", "k": 2, "d": 1, "mix": "clean", "n": 100, "estimator": "dmm", "weights": "gls"}
    inside = [base | {"delta": d, "w1_mean": w} for d, w in ((0.1, 1.0), (0.2, 3.0), (0.4, 2.0))]
    at_end = [r | {"n": 10, "w1_mean": r["delta"]} for r in inside]
    control = [r | {"estimator": "mean-only", "weights": "-", "w1_mean": r["delta"]} for r in inside]
    kept, skipped = worst_of_grid([*inside, *at_end, *control, {"family": "hard"}])
    assert [r.get("delta") for r in kept] == [0.2, 0.4, None]
    assert len(skipped) == 1
    assert "largest of the grid" in skipped[0].reason


def rows_with_slope(slope, *, family="separated", estimator="dmm", factor=1.0, se=0.001):
    weights = "gls" if estimator == "dmm" else "-"
    base = {"family": family, "k": 2, "d": 1, "mix": "clean", "estimator": estimator, "weights": weights}
    sizes = (10**3, 10**4, 10**5, 10**6)
    values = [factor * n**slope for n in sizes]
    return [base | {"n": n, "n_l": n, "w1_mean": w, "w1_se": se * w} for n, w in zip(sizes, values, strict=True)]


def test_slopes_and_verdicts():
    (exact,) = slope_table(rows_with_slope(-0.5))
    assert exact.slope == pytest.approx(-0.5)
    assert exact.low < -0.5 < exact.high
    assert exact.verdict == "slope as predicted"
    for slope, words in ((-0.51, "within 0.02 of the prediction, and steeper"), (-0.49, "and flatter than it")):
        (near,) = slope_table(rows_with_slope(slope, se=0.001))
        assert words in near.verdict
        assert not near.low <= -0.5 <= near.high
    assert "steeper than the rate" in slope_table(rows_with_slope(-0.53, se=0.001))[0].verdict
    assert "flatter" in slope_table(rows_with_slope(-0.2))[0].verdict
    both = rows_with_slope(-1 / 6, family="hard") + rows_with_slope(
        -1 / 6, family="hard", estimator="mean-only", factor=2
    )
    dmm, control = slope_table(both)
    assert dmm.against_mean_only[0] == pytest.approx(0.5)
    assert "clearly beats one atom" in dmm.verdict
    assert "built into the instance" in control.verdict
    same = rows_with_slope(-1 / 6, family="hard") + rows_with_slope(-1 / 6, family="hard", estimator="mean-only")
    assert "does not beat one atom" in slope_table(same)[0].verdict


def test_collapse_is_seen_in_the_axis_that_has_it():
    clean = rows_with_slope(-1 / 6, family="hard")
    noisy = [r | {"mix": "noisy", "n": 64 * r["n"]} for r in clean]
    (found,) = collapse_table(clean + noisy)
    assert found.spread_effective < 1e-9
    assert found.spread_n > 0.5
    assert "collapse onto one curve in n_l and not in n" in found.verdict
    (none,) = collapse_table(clean + [r | {"w1_mean": 2 * r["w1_mean"]} for r in noisy])
    assert "do not collapse" in none.verdict


def reference_rows(slope=-0.5):
    sizes = np.geomspace(1000, 1e6, 13)
    return [{"n": n, "w1_mean": n**slope, "w1_se": 0.01 * n**slope} for n in sizes]


def test_exchange_rate_at_equal_error_is_recovered_with_its_interval():
    rng, c = np.random.default_rng(0), 0.1
    mixed = {"n_clean": 1000, "n_noisy": 100_000, "w1_mean": (1000 + c * 100_000) ** -0.5, "w1_se": 1e-4}
    value, low, high, note = equal_error_rate(reference_rows(), mixed, rng)
    assert note == ""
    assert value == pytest.approx(c)
    assert low < c < high
    exact = [r | {"w1_se": 0.0} for r in reference_rows()]
    _, low0, high0, _ = equal_error_rate(exact, mixed, rng)
    assert high0 - low0 < high - low  # the reference curve's own noise is part of the interval


def test_an_unresolvable_exchange_rate_is_refused():
    mixed = {"n_clean": 1000, "n_noisy": 100_000, "w1_mean": 1200**-0.5, "w1_se": 1e-4}
    value, _, _, note = equal_error_rate(reference_rows(), mixed, np.random.default_rng(0))
    assert value is None
    assert note.startswith("unresolvable")


def test_exchange_plan_spans_the_reference_curve():
    config = ExchangeConfig(deltas=(0.5, 2.0), reps=10)
    assert config.noisy == 2 * 64 * 100_000
    cells = plan_exchange(config)
    sizes = [c.n for c in cells if c.mix == "clean" and c.delta == 0.5]
    assert sizes == config.reference_sizes()
    assert (sizes[0], sizes[-1]) == (config.n_clean, config.n_clean + config.noisy)
    assert len({c.hash for c in cells}) == len(cells)


def test_sizes_and_mixes_are_parsed_or_refused():
    assert parse_sizes("1e3..1e5") == (1000, 3162, 10_000, 31_623, 100_000)
    assert parse_sizes("1e3..1e5", 1) == (1000, 10_000, 100_000)
    assert parse_sizes("500, 1e15") == (500, 10**15)
    assert parse_mix("25:75") == Mix("25:75", 0.25)
    assert parse_mix("10:90").counts(5) == (0, 5)  # round half to even: 0.5 clean samples are none
    for bad in ("", "x", "5..1", "0", "-3", "1..inf"):
        with pytest.raises(UsageError):
            parse_sizes(bad)
    for bad in ("dirty", "1:2:3", "-1:2", "0:0", "nan:1"):
        with pytest.raises(UsageError):
            parse_mix(bad)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": (0,)}, "k must be"),
        ({"dim": 0}, "dim 0"),
        ({"s_clean": -1.0}, "sigma_clean -1"),
        ({"s_noisy": 0.5}, "less noise"),
        ({"families": ("easy",)}, "families 'easy' is not one of separated"),
        ({"estimators": ("magic",)}, "estimators 'magic' is not one of dmm"),
        ({"weights": ("magic",)}, "weights 'magic' is not one of gls"),
        ({"engine": "steam"}, "engine 'steam' is not one of auto"),
        ({"engine": "wishart"}, "needs --dim"),
        ({"families": ("pca-hard",)}, "needs --dim"),
        ({"dim": 3, "engine": "binned"}, "for the line"),
        ({"dim": 3, "k": (3,), "engine": "wishart"}, "use --engine exact"),
        ({"dim": 3, "estimators": ("mle",)}, "on the line only"),
        ({"engine": "exact", "estimators": ("em",)}, "use --engine binned"),
        ({"families": ("fixed",)}, "go together"),
        ({"families": ("fixed",), "atoms": "0:0.5,3:0.5"}, "outside the ball"),
        ({"families": ("fixed",), "atoms": "0,0.5,1"}, "3 atoms given"),
        ({"reps": 1}, "reps 1"),
        ({"seed": -1}, "seed"),
        ({"bins": 10}, "bins"),
        ({"radius": 0.0}, "radius"),
        ({"n": ()}, "sample sizes"),
    ],
)
def test_bad_configs_get_a_sentence(options, words):
    with pytest.raises(UsageError, match=words):
        SimulationConfig(**options)


QUICK = ["simulate-gmm", "--n", "1e3,1e4,1e5", "--reps", "20", "--bins", "150"]


def test_the_command_writes_records_table_summary_and_figures(tmp_path):
    result = CliRunner().invoke(app, [*QUICK, "--outdir", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert len(summary["rows"]) == 2 * 3 * 3 * 2
    assert {s["family"] for s in summary["slopes"]} == {"separated", "hard"}
    records = read_records(tmp_path / "records.jsonl")
    assert len(records) == len(summary["rows"])
    assert len((tmp_path / "table.csv").read_text().splitlines()) == len(records) + 1
    assert (tmp_path / "w1.svg").read_text().startswith("<?xml")
    assert (tmp_path / "w1.png").read_bytes().startswith(b"\x89PNG")
    again = CliRunner().invoke(app, [*QUICK, "--outdir", str(tmp_path), "--json"])
    assert json.loads(again.stdout) == summary
    assert "18 already done" in again.stderr
    other = CliRunner().invoke(app, [*QUICK, "--seed", "1", "--outdir", str(tmp_path)])
    assert other.exit_code == 2
    assert "another seed" in other.stderr


def test_a_terminal_reader_gets_tables_and_a_verdict(tmp_path):
    result = CliRunner().invoke(app, [*QUICK, "--outdir", str(tmp_path), "--quiet"])
    assert result.exit_code == 0
    assert "Verdict" in result.stdout
    assert "clearly beats one atom" in result.stdout
    assert result.stderr == ""


MANY = (
    "--estimator",
    "dmm",
    "--estimator",
    "clean-only",
    "--estimator",
    "mean-only",
    "--weights",
    "gls",
    "--weights",
    "sigma",
)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("--dim", "5", "--family", "pca-envelope", "--n", "1e2..1e4", "--quick"), "pca-envelope k=2 d=5"),
        (("--n", "1e3,1e4,1e15", "--bins", "150", *MANY), "clean-only/sigma"),
        (("--iso", "--k", "3", "--delta", "0.1", "--delta", "12", "--iso-noisy", "1e9", "--bins", "200"), "marginal"),
    ],
    ids=["space", "many estimators", "exchange"],
)
def test_tables_fit_eighty_columns(arguments, shown, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = CliRunner().invoke(app, ["simulate-gmm", *arguments, "--reps", "4", "--outdir", str(tmp_path), "--quiet"])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert shown in result.stdout
    assert "…" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_dry_run_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["simulate-gmm", "--dry-run", "--k", "3", "--family", "hard", "--json"])
    plan_shown = json.loads(result.stdout)
    assert len(plan_shown["cells"]) + len(plan_shown["skipped"]) == 33
    assert plan_shown["estimate_s"] > 0
    assert list(tmp_path.iterdir()) == []


def test_what_takes_long_is_told_before_it_begins_and_finished_cells_take_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(run, "simulate", lambda *_: iter(()))
    long = plan(SimulationConfig(k=(3,), dim=4, n=(1000, 10_000), reps=500)).cells
    run.run_cells(long, None, 1, quiet=False)
    said = capsys.readouterr().err
    assert f"{len(long)} cells take about" in said
    assert "fewer --reps" in said
    run.run_cells(long, None, 1, quiet=True)
    run.run_cells(plan(SimulationConfig()).cells, None, 1, quiet=False)
    ledger = SimpleNamespace(load=lambda cell: {"rows": []})
    run.run_cells(long, ledger, 1, quiet=False)
    assert capsys.readouterr().err == ""


def test_the_exchange_command(tmp_path):
    arguments = ["simulate-gmm", "--iso", "--delta", "4", "--reps", "60", "--bins", "200", "--iso-clean", "1e4"]
    result = CliRunner().invoke(app, [*arguments, "--outdir", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["exchange"]
    assert row["low"] < row["fisher"] * 1.2
    assert row["high"] > row["fisher"] * 0.7
    assert row["c"] > 5 * row["weights"]["lowdim-k2"]
    assert (tmp_path / "exchange.svg").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--k", "0"],
        ["--mix", "dirty"],
        ["--n", "many"],
        ["--sigma-noisy", "nan"],
        ["--added-noise", "-1"],
        ["--added-noise", "1", "--sigma-noisy", "3"],
        ["--added-noise", "1", "--sigma-clean", "1"],
        ["--s0", "2"],
        ["--workers", "0"],
        ["--iso", "--k", "1"],
        ["--iso", "--delta", "0"],
        ["--iso", "--iso-clean", "nan"],
        ["--iso", "--mix", "10:90"],
        ["--iso", "--n", "1e3"],
        ["--delta", "4"],
        ["--iso", "--estimator", "dmm", "--estimator", "mle"],
        ["--iso", "--calibrate"],
        ["--quick", "--reps", "500"],
        ["--weights", "order", "--estimator", "mle"],
        ["--engine", "exact", "--bins", "200"],
        ["--noise-column", "s"],
        ["--noise-file", "pyproject.toml", "--sigma-noisy", "3"],
        ["--calibrate", "--dim", "3"],
        ["--calibrate", "--family", "hard"],
        ["--calibrate", "--mix", "clean"],
        ["--calibrate", "--k", "3", "--calibrate-dim", "5"],
        ["--calibrate-dim", "5"],
        ["--family", "fixed", "--atoms", "0:2"],
    ],
)
def test_bad_options_end_with_two_and_one_sentence(arguments, tmp_path):
    result = CliRunner().invoke(app, ["simulate-gmm", "--outdir", str(tmp_path), *arguments])
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert len(result.stderr.strip().splitlines()[-1]) > 20


def test_help_imports_nothing_heavy():
    code = (
        "import sys, cli; print(sorted(m for m in ('numpy', 'scipy', 'torch', 'sympy', 'sklearn') if m in sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_in_space_the_worst_case_is_compared_with_both_terms_of_the_bound():
    """Rows that follow the two-term bound have its slope, between -1/4 and -1/6, and not that of either term alone."""
    rows = rows_with_slope(-0.5, family="envelope", se=0.001)
    rows = [
        r | {"d": 20, "n_d": r["n"], "w1_mean": 0.54 * (20 / r["n"]) ** 0.25 + 0.74 * r["n"] ** (-1 / 6)} for r in rows
    ]
    rows = [r | {"w1_se": 1e-3 * r["w1_mean"]} for r in rows]
    (found,) = slope_table(rows)
    assert found.theory == pytest.approx(found.slope)
    assert -0.25 < found.theory < -1 / 6 - 0.01
    assert found.verdict == "slope as predicted"
    (line,) = slope_table([r | {"d": 1} for r in rows])
    assert line.theory == pytest.approx(-1 / 6)


def test_the_weak_subspaces_envelope_is_a_fixed_grid_and_keeps_its_worst_signal():
    config = SimulationConfig(dim=5, families=("pca-envelope",), mixes=("clean",), n=(300, 3000), reps=8)
    cells = plan(config).cells
    grids = [[c.delta for c in cells if c.n == n] for n in (300, 3000)]
    assert grids[0] == grids[1]
    assert (len(grids[0]), grids[0][-1]) == (12, pytest.approx(2.0))
    rows, skipped = worst_of_grid([row for c in cells for row in run_cell(c)["rows"]])
    assert len(rows) + len(skipped) == 4
    assert {r["n"] for r in rows if r["estimator"] == "dmm"} | {300, 3000} == {300, 3000}
    with pytest.raises(UsageError, match="needs --dim 2"):
        SimulationConfig(families=("pca-envelope",))


# ------------------------------------------------------------------------------------- the noise of a user's samples


def test_the_noise_of_a_file_is_that_of_the_cells(tmp_path):
    """The file's own number of samples has exactly its levels; other numbers have them in the same shares."""
    s = np.concatenate([np.full(30, 1.0), np.full(50, 1.5), np.full(120, 3.0)])
    (tmp_path / "a.csv").write_text("x,s\n" + "".join(f"0,{v}\n" for v in s))
    arguments = [
        "simulate-gmm",
        "--noise-file",
        str(tmp_path / "a.csv"),
        "--noise-column",
        "s",
        "--family",
        "separated",
    ]
    arguments += ["--reps", "4", "--bins", "150", "--outdir", str(tmp_path / "out"), "--json"]
    result = CliRunner().invoke(app, [*arguments, "--n", "200,1000,10000"])
    assert result.exit_code == 0, result.output
    rows = [r for r in json.loads(result.stdout)["rows"] if r["mix"] == "file" and r["estimator"] == "dmm"]
    assert [r["n"] for r in rows] == [200, 1000, 10000]
    for r in rows:
        assert r["sigmas"] == [1.0, 1.5, 3.0]
        assert r["n_l"] == pytest.approx(bounds.n_l(2, s) * r["n"] / 200)
        terms = bounds.bound(2, 1, s, np.full(200, r["n"] / 200), radius=7.5)
        assert (r["bound_low"], r["low_weight_condition"]) == pytest.approx((terms.low, terms.low_weight_condition))
    assert {r.regime for r in read_records(tmp_path / "out" / "records.jsonl")} == {"clean"}
    dry = CliRunner().invoke(app, [*arguments[:-3], "--dry-run", "--json"])
    assert any("-file-n200-" in name for name in json.loads(dry.stdout)["cells"])  # as many as the file has


def test_every_sample_of_its_own_noise_is_taken_in_steps_and_the_shares_add_up():
    s = np.exp(np.random.default_rng(0).standard_normal(5000) / 2)
    settings = noise_settings(s)
    assert len(settings["levels"]) <= 64
    assert sum(settings["shares"]) == pytest.approx(1)
    for power in (2, 4, 6):
        exact, steps = np.mean(s**-power), np.array(settings["shares"]) @ np.array(settings["levels"]) ** -power
        assert steps == pytest.approx(exact, rel=0.03)
    assert apportioned(7, (0.5, 0.25, 0.25)) == (3, 2, 2)
    for n in (1, 10, 999):
        assert sum(apportioned(n, settings["shares"])) == n


def test_fine_noise_of_a_file_is_simulated_as_it_is_and_noise_of_another_unit_by_its_radius(tmp_path):
    """Of the engines the exact one knows no bins: the same risk, but for what 30 replicates scatter."""
    np.save(tmp_path / "fine.npy", np.repeat([1e-3, 2e-3], 50))
    np.save(tmp_path / "coulombs.npy", np.repeat([1e-20, 2e-20], 50))

    def risks(name, *more):
        words = ["simulate-gmm", "--noise-file", str(tmp_path / name), "--family", "separated", "--n", "1000", *more]
        out = str(tmp_path / "-".join(["out", name, *more]).replace("/", "_"))
        result = CliRunner().invoke(app, [*words, "--reps", "30", "--outdir", out, "--quiet", "--json"])
        assert result.exit_code == 0, result.output
        rows = [row for row in json.loads(result.stdout)["rows"] if row["estimator"] == "dmm"]
        return np.array([[row["w1_mean"], row["w1_se"]] for row in rows]).T

    (fine, error), (exact, other) = risks("fine.npy"), risks("fine.npy", "--engine", "exact")
    assert np.all(np.abs(fine - exact) < 4 * np.hypot(error, other))
    (small, _) = risks("coulombs.npy", "--radius", "2e-17")
    np.testing.assert_allclose(small / 1e-20, fine / 1e-3, rtol=1)
    refused = CliRunner().invoke(app, ["simulate-gmm", "--noise-file", str(tmp_path / "coulombs.npy"), "--n", "1000"])
    assert refused.exit_code == 2
    assert "give --radius in the unit of the noise" in refused.stderr


def test_a_few_precise_samples_are_said_to_carry_the_bound(tmp_path):
    s = np.append(np.full(999, 2.0), 0.2)
    np.save(tmp_path / "s.npy", s)
    arguments = [
        "simulate-gmm",
        "--noise-file",
        str(tmp_path / "s.npy"),
        "--family",
        "separated",
        "--n",
        "1000,2000,4000",
    ]
    result = CliRunner().invoke(app, [*arguments, "--reps", "4", "--outdir", str(tmp_path / "a"), "--quiet"])
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    assert "file, n 1e+03 to 2e+03: a few samples carry n_l (condition up to 4," in words
    assert "clean, n" not in words.split("Verdict")[1].split("a few samples")[1]
    few = CliRunner().invoke(app, [*arguments[:-1], "1000", "--reps", "4", "--outdir", str(tmp_path / "c"), "--quiet"])
    assert "file, n 1e+03: a few samples carry n_l" in " ".join(few.stdout.split())
    assert re.search(r"standard errors up to [1-9]0* %", " ".join(few.stdout.split()))
    even = CliRunner().invoke(app, [*QUICK, "--outdir", str(tmp_path / "b"), "--quiet"])
    assert "a few samples" not in even.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("s\n1\n-2\n0\n", "2 rows (3, 4; the header is row 1)"),
        ("s\n1\n\nNA\n", "1 row (3; the header is row 1)"),
        ("s\n1\ntwo\n", "row 3 has 'two'"),
    ],
)
def test_noise_that_cannot_be_is_named_by_its_rows(text, words, tmp_path):
    (tmp_path / "s.csv").write_text(text)
    arguments = ["simulate-gmm", "--noise-file", str(tmp_path / "s.csv"), "--outdir", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 3, result.output
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


def test_noise_as_an_array_is_the_same_as_a_file(tmp_path):
    s = [1.0, 1.0, 2.0, 4.0]
    found = run_in_python(noise=s, n=(1000,), families=("separated",), reps=4, bins=150, outdir=tmp_path / "a")
    assert {r["mix"] for r in found.summary["rows"]} == {"clean", "file"}
    with pytest.raises(UsageError, match="mixes"):
        run_in_python(noise=s, mixes=("clean",), outdir=tmp_path / "b")


# ---------------------------------------------------------------------------------------- the constants of the bound


def exact_worst_cases(c_d=0.5, c_l=0.8, dims=(1, 10, 30), se=1e-6):
    """Rows that follow the two-term bound with these constants."""
    rows = []
    for d in dims:
        for mix, levels, shares in (("clean", [1.0], [1.0]), ("10:90", [1.0, 2.0], [0.1, 0.9])):
            for n in (10_000, 100_000, 1_000_000, 10_000_000):
                counts = np.array(shares) * n
                n_d, n_l = bounds.n_d(levels, counts), bounds.n_l(2, levels, counts)
                w1 = c_d * (d / n_d) ** 0.25 * (d > 1) + c_l * n_l ** (-1 / 6)
                rows.append({"family": "envelope", "k": 2, "d": d, "mix": mix, "n": n, "n_d": n_d, "n_l": n_l,
                             "w1_mean": w1, "w1_se": se * w1})  # fmt: skip
    return rows


def test_constants_are_found_where_the_bound_is_exact_and_counting_samples_misses():
    found = calibrate(exact_worst_cases())
    assert found.c_d == pytest.approx((0.5, 0.5, 0.5), rel=1e-4)
    assert found.c_l == pytest.approx((0.8, 0.8, 0.8), rel=1e-4)
    assert max(found.spread, found.held_out, found.new_dimension[1]) < 1e-5
    assert found.naive > 0.2
    assert found.verdict.startswith("two constants")
    line = calibrate(exact_worst_cases(dims=(1,)))
    assert (line.c_d, line.new_dimension) == (None, None)
    assert line.c_l[0] == pytest.approx(0.8, rel=1e-4)


def test_the_control_of_the_constants_what_follows_n_is_not_called_described():
    rows = [r | {"w1_mean": 0.5 * (r["d"] / r["n"]) ** 0.25 + 0.8 * r["n"] ** (-1 / 6)} for r in exact_worst_cases()]
    found = calibrate(rows)
    assert found.naive < found.held_out
    assert found.verdict.startswith("the two terms do not describe")


def test_the_worst_of_two_families_counts_and_too_few_worst_cases_are_refused():
    rows = exact_worst_cases()
    doubled = [r | {"family": "pca-envelope", "w1_mean": 1.5 * r["w1_mean"]} for r in rows if r["d"] == 10]
    families = {(p.d, p.family) for p in calibrate(rows + doubled).points}
    assert families == {(1, "envelope"), (10, "pca-envelope"), (30, "envelope")}
    with pytest.raises(UsageError, match="more sizes --n"):
        calibrate(rows[:3])


def test_the_command_fits_the_constants_and_says_what_they_miss(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ["simulate-gmm", "--calibrate", "--calibrate-dim", "1", "--n", "1e3,1e4,1e5,1e6", "--mix", "noisy"]
    arguments += ["--reps", "30", "--bins", "150", "--outdir", str(tmp_path), "--quiet"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "Verdict: two constants and the effective sizes describe" in result.stdout
    assert "…" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    found = json.loads((tmp_path / "summary.json").read_text())["calibration"]
    assert found["c_d"] is None
    assert 0.6 < found["c_l"][0] < 1.0  # 0.80 (0.73 to 0.87) over d = 1, 10, 30
    assert found["held_out"] < 0.1
    assert found["naive"] > 3 * found["held_out"]
    assert (tmp_path / "calibration.svg").exists()


def test_in_space_no_slope_is_predicted_for_a_k_whose_constants_nobody_has_fitted():
    rows = [r | {"k": 3, "d": 20, "n_d": r["n"]} for r in rows_with_slope(-0.15, family="envelope", se=0.001)]
    (found,) = slope_table(rows)
    assert found.theory is None
    assert "fitted for k = 2 only" in found.verdict
