"""What ships is made from the committed results by a rule, byte for byte, and the simulation in it can be run again."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from experiment_script import experiment

from ambient_theory.shared.reading import read_records
from ambient_theory.simulation.cells import run_cell
from ambient_theory.simulation.grid import SimulationConfig, plan

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def ship():
    return experiment("ship")


def test_the_shipped_records_are_what_the_script_makes(ship):
    made = ship.shipped_files()
    assert {p.name for p in ship.SHIPPED.iterdir()} == {*made, *ship.KEPT}
    for name, data in made.items():
        assert ship.unpacked(name, (ship.SHIPPED / name).read_bytes()) == ship.unpacked(name, data)


def test_every_held_out_score_ships_once(ship):
    shipped = [r for name in ship.GRIDS for r in read_records(ship.SHIPPED / name)]
    committed = [r for name in ship.GRIDS for r in read_records(ship.RESULTS / name) if r.reference == "heldout-clean"]
    assert len({ship.measured(r) for r in shipped}) == len(shipped) < len(committed)
    assert {ship.measured(r) for r in shipped} == {ship.measured(r) for r in committed}


def test_a_changed_result_is_noticed(ship, tmp_path):
    for name in ship.GRIDS:
        lines = ship.unpacked(name, (ship.RESULTS / name).read_bytes()).decode().splitlines()
        first = next(i for i, line in enumerate(lines) if json.loads(line)["reference"] == "heldout-clean")
        record = json.loads(lines[first])
        lines[first] = json.dumps({**record, "value": record["value"] + 1})
        text = ("\n".join(lines) + "\n").encode()
        (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert ship.shipped_files(tmp_path) != ship.shipped_files()


def test_the_committed_table_is_made_from_the_committed_records():
    records = read_records(ROOT / "experiments/results/table1_fashion.jsonl")
    text = experiment("table1").markdown(records, "fd", "heldout-clean")
    assert text == (ROOT / "experiments/results/table1_fashion.md").read_text(encoding="utf-8")


def test_the_shipped_simulation_is_the_simulators(ship):
    stored = {(r.extra["family"], r.extra["mix"], r.extra["n"], r.extra["estimator"]): r for r in read_records(
        ship.SHIPPED / "simulate_gmm.jsonl"
    )}  # fmt: skip
    cells = [c for c in plan(SimulationConfig()).cells if c.n == 1000]
    assert len(cells) == 6
    for cell in cells:
        for row in run_cell(cell)["rows"]:
            record = stored[row["family"], row["mix"], row["n"], row["estimator"]]
            assert record.value == pytest.approx(row["w1_mean"], rel=1e-6)
            assert record.sigma_n == pytest.approx(3**0.5) if cell.n_noisy else record.sigma_n is None
