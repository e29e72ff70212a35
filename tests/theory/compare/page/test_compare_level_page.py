"""Worth by level on the page and in the commands: first on the page, the same bytes twice, refusals in a sentence."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from compare_sweeps import sweep
from level_sweeps import LEVELS, SIGMA, level_sweep, one_good, two_goods
from matplotlib.figure import Figure
from typer.testing import CliRunner

from ambient_theory.compare.findings import gather_findings
from ambient_theory.compare.page.build import build_report
from ambient_theory.shared.plotting import log_axis
from ambient_theory.shared.records import write_records
from cli import app

TRUTH = two_goods(0.4, 1.2, 2.0)
TRUTH_ALONE = lambda level, n_clean, n_noisy, sigma: 0.4 * n_noisy  # noqa: E731


@pytest.fixture(scope="module")
def records():
    rng = np.random.default_rng(0)
    rows = level_sweep(rng, TRUTH, seeds=3)
    rows += level_sweep(rng, one_good(0.3), seeds=3, sigmas=(0.5,), clean=())
    return rows + level_sweep(rng, TRUTH, seeds=3, checkpoint="heldout-best", extra={"images": "half0000", "dim": 64})


@pytest.fixture(scope="module")
def report(records, tmp_path_factory):
    return build_report([*records, *sweep(np.random.default_rng(1))], tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def file(records, tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    write_records(path, records)
    return path


def test_two_goods_come_first_on_the_page_with_the_noise_level_marked(report):
    text = report.page.read_text()
    headings = re.findall(r"<h2[^>]*>([^<]*)</h2>", text)
    assert headings[:4] == [
        "Two goods: worth by level, made-up",
        "Scores against the effective size",
        "Price against the noise",
        "What to buy",
    ]
    assert "noise level of the data" in text
    assert "V/(V + v)" in text
    for name in ("g0-goods", "g0-unseen", "g0-price", "g0-worth", "g0-formula", "g0-1-worth"):
        assert (report.outdir / "figures" / f"{name}.svg").exists()
    assert report.findings.answers[0].startswith("made-up, at fixed compute, σ 0.25: above the noise level one clean")


def test_sixteen_levels_make_no_sixteen_groups(report, records):
    assert {a.group.key.metric for a in report.findings.analyses} == {"fd"}
    assert gather_findings(records).analyses == ()


def test_the_numbers_behind_the_page_are_in_its_json(report):
    found = json.loads((report.outdir / "fit.json").read_text())["levels"]
    assert [f["condition"]["checkpoint"] for f in found] == ["last", "heldout-best"]
    sigmas = [j["sigma_n"] for j in found[0]["noise_levels"]]
    assert sigmas == [SIGMA, 0.5]
    assert len(found[0]["noise_levels"][0]["free_worths"]) == len(LEVELS)
    assert found[0]["formula"]["above"]["slope"]


def test_the_same_records_give_the_same_bytes(records, tmp_path):
    rows = [r for r in records if r.checkpoint == "last" and r.sigma_n in (None, SIGMA)]
    a, b = (build_report(rows, tmp_path / name) for name in ("a", "b"))
    assert a.page.read_bytes() == b.page.read_bytes()
    assert (a.outdir / "fit.json").read_bytes() == (b.outdir / "fit.json").read_bytes()


def test_price_prints_the_bands_where_errors_by_level_are_among_the_records(file):
    shown = CliRunner().invoke(app, ["price", "--sigma", "0.25", str(file)])
    assert shown.exit_code == 0, shown.output
    assert "By level" in shown.output
    assert "above σ" in shown.output
    told = CliRunner().invoke(app, ["price", "--sigma", "0.25", "--json", "--quiet", str(file)])
    levels = json.loads(told.stdout)["levels"]
    assert [one["condition"]["checkpoint"] for one in levels] == ["last", "heldout-best"]
    assert len(levels[0]["formula"]) == len(LEVELS)


def test_price_at_a_noise_that_was_not_measured_says_what_was(file):
    refused = CliRunner().invoke(app, ["price", "--sigma", "0.33", str(file)])
    assert refused.exit_code == 3
    assert "σ 0.33 was not measured by level (measured: 0.25, 0.5)" in refused.stderr


def test_compare_of_records_that_price_nothing_by_level_says_why_on_the_page(tmp_path):
    report = build_report(level_sweep(None, TRUTH, clean=()), tmp_path)
    assert "no model was trained on clean images alone" in report.page.read_text()


def test_a_mixture_is_drawn_with_its_parts_where_they_were_trained(records, tmp_path):
    from ambient_theory.compare.by_level.levels import level_tables
    from ambient_theory.compare.page.answer_figures import parts_figure, with_parts

    rng = np.random.default_rng(5)
    rows = [r for r in records if r.checkpoint == "last" and r.sigma_n in (None, SIGMA)]
    (table,) = level_tables(rows)
    clean_parts = {m.n_clean for m, clean, noisy in with_parts(table) if clean is not None and noisy is None}
    assert clean_parts == {m.n_clean for m in table.mixtures}
    alone = level_sweep(rng, TRUTH_ALONE, seeds=3, clean=(), mixed=((0, 200),))
    (table,) = level_tables([*rows, *alone])
    both = [(m.n_clean, m.n_noisy) for m, clean, noisy in with_parts(table) if clean is not None and noisy is not None]
    assert both == [(50, 200), (100, 200), (200, 200)]
    lines = {line.get_label() for ax in parts_figure(table).axes for line in ax.lines}
    assert {"the mixture", "its clean part alone", "its noisy part alone"} <= lines


def test_the_formula_on_the_price_figure_does_not_jump_where_the_noise_passes_a_level(report):
    from ambient_theory.compare.page.answer_figures import formula_prices

    grid = np.geomspace(0.05, 1.5, 200)
    low, second = formula_prices(report.findings.levels[0], grid)
    assert np.all(np.diff(low) > 0)  # dearer with more noise, without a step back
    assert np.max(np.diff(np.log(low))) < 0.15
    assert np.all(second <= low * (1 + 1e-9))


@pytest.mark.parametrize(("low", "high"), [(0.97, 1.7), (0.9, 3.5), (1.1, 1.9), (0.5, 30.0), (0.01, 20.0)])
def test_a_fine_axis_has_labels_enough_to_be_read(low: float, high: float) -> None:
    figure = Figure()
    ax = figure.subplots()
    ax.plot([1, 2], [low, high])
    ax.set_ylim(low, high)
    log_axis(ax, "y", fine="y")
    figure.draw_without_rendering()
    assert sum(low <= y <= high for y in ax.get_yticks()) >= 3
