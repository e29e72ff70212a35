"""experiments/coverage.py: its table is that of docs/theory.md, its draws are what they say, and it measures once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from experiment_script import experiment

from ambient_theory.mixtures.estimators import HeteroscedasticMixture
from ambient_theory.mixtures.inference import Uncertainty
from ambient_theory.mixtures.laws import AtomicLaw


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return experiment("coverage")


def test_the_table_of_the_page_is_that_of_what_was_measured(script: ModuleType) -> None:
    page, found = script.PAGE.read_text(encoding="utf-8"), script.known()
    assert script.MARKED.marked(page, script.table(found)) == page
    assert "Not measured yet" not in page
    assert script.MARKED.marked(page, script.table([{**entry, "mean": 0.5} for entry in found])) != page


def test_the_page_says_that_every_mean_is_inside_86_to_94_per_cent_where_it_is(script: ModuleType) -> None:
    page = " ".join(script.PAGE.read_text(encoding="utf-8").split())
    assert ("The bar is 86 to 94. Every mean is inside it;" in page) == all(
        abs(entry["mean"] - 0.9) <= 0.04 for entry in script.known()
    )


def test_intervals_are_compared_in_the_order_of_the_law_and_half_a_shift_is_seen(script: ModuleType) -> None:
    law = AtomicLaw([[4.0, 0.0], [-4.0, 1.0]], [0.25, 0.75])
    x = law.sample(np.ones(400), np.random.default_rng(0))
    model = HeteroscedasticMixture(random_state=0).fit(x, noise_std=1.0)
    assert model.means_[0, 0] * law.atoms[0, 0] < 0  # sorted otherwise than the law, or the test says nothing
    atoms, weights = law.atoms[::-1], law.weights[::-1]
    found = Uncertainty(0.9, "bootstrap", atoms, atoms - 0.1, atoms + 0.1, weights, weights - 0.1, weights + 0.1)
    assert script.inside(found, model, law).tolist() == [True] * 5
    moved = replace(found, means_low=np.array([[atoms[0, 0] + 0.05, 0.9], [3.9, -0.1]]))
    assert script.inside(moved, model, law).tolist() == [True, True, False, True, True]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hard pair of half-width 1.5 in d = 5", "hard pair of half-width 1 in d = 2"])
def test_in_space_other_seeds_say_the_same(name: str, script: ModuleType) -> None:
    [design] = [d for _, designs in script.DESIGNS for d in designs if d.name.startswith(name)]
    found = script.measured(replace(design, draws=20, seed=2))
    assert abs(found["mean"] - 0.9) < 0.04 + 2 * found["stderr"]


@pytest.mark.parametrize("noise", ["known", "unknown"])
def test_a_design_is_measured_once_and_again_when_its_settings_change(
    noise: str, script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = script.Design("tiny", AtomicLaw([-3.0, 3.0] if noise == "known" else [1.0]), 40, 2, "dmm", noise=noise)
    monkeypatch.setattr(script, "OUT", tmp_path / "coverage.json")
    told: list[str] = []

    def run(design: object) -> dict[str, object]:
        monkeypatch.setattr(script, "DESIGNS", (("by moments", (design,)),))
        script.run(told.append)
        [entry] = json.loads(script.OUT.read_text())["designs"]
        return entry

    first = run(tiny)
    assert len(first["coverage"]) == (3 if noise == "known" else 2)  # two atoms and a weight, one atom and the noise
    assert first == run(tiny)
    assert len(told) == 1
    assert run(replace(tiny, n=41)) != first
    assert len(told) == 2
    assert "Not measured yet: tiny" in script.table([])
