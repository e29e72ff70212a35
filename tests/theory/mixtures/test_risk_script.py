"""experiments/risk.py: its table is that of docs/theory.md, the bar holds in what it measured, and it measures once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from experiment_script import experiment


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return experiment("risk")


def test_the_table_of_the_page_is_that_of_what_was_measured(script: ModuleType) -> None:
    page, found = script.PAGE.read_text(encoding="utf-8"), script.known()
    assert script.MARKED.marked(page, script.table(found)) == page
    assert len(found) == len(script.DESIGNS)
    assert "Not measured yet" not in script.table(found)
    assert script.MARKED.marked(page, script.table([{**entry, "ratio": 3.0} for entry in found])) != page


def test_the_default_has_at_most_1_2_times_the_risk_of_the_best_of_the_others(script: ModuleType) -> None:
    """Within two standard errors. The control: the moments or the law of all laws, as the default, would lose."""
    found = script.known()
    assert [entry["settings"] for entry in found if entry["lost"] > 2 * entry["lost_stderr"]] == []
    for method in ("dmm", "npmle"):
        worst = max(e["risk"][method] / min(e["risk"].values()) for e in found if method in e["risk"])
        assert worst > 1.5 * script.BAR, method


def test_a_design_is_measured_once_and_what_it_says_follows_from_the_errors(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    design = replace(script.DESIGNS[0], reps=2)
    monkeypatch.setattr(script, "OUT", tmp_path / "risk.json")
    monkeypatch.setattr(script, "DESIGNS", (design,))
    told: list[str] = []
    script.run(told.append)
    script.run(told.append)
    [entry] = json.loads(script.OUT.read_text())["designs"]
    assert len(told) == 1
    rows = np.array([script.errors(design, i) for i in range(2)])
    assert [entry["risk"][name] for name in design.methods] == pytest.approx(rows.mean(axis=0))
    other = rows[:, design.methods.index(entry["best"])]
    assert entry["ratio"] == pytest.approx(rows[:, 0].mean() / other.mean())
    lost = rows[:, 0] - 1.2 * other
    assert (entry["lost"], entry["lost_stderr"]) == pytest.approx(
        (lost.mean() / other.mean(), lost.std(ddof=1) / 2**0.5 / other.mean())
    )
