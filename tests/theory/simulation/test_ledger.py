"""The ledger: a finished directory stays finished (the bytes that are hashed do not change), damage is run again."""

from __future__ import annotations

import json
from dataclasses import fields, replace

from ambient_theory.shared.files import write_sealed
from ambient_theory.simulation.cells import simulate
from ambient_theory.simulation.exchange import ExchangeConfig, plan_exchange
from ambient_theory.simulation.grid import SimulationConfig, plan
from ambient_theory.simulation.ledger import Ledger, SimulationCell

# Directories that `ambient simulate-gmm` wrote before the cell was a dataclass (laws whose numbers need no libm).
SEPARATED = ("separated-k2-d1-clean-n1000-da238d16", "separated-k2-d1-10_90-n100000-cefb96af")
SPACE = "pca-strong-k2-d4-10_90-n400-6bcb7f49"

# What was stored of one cell then: the config as JSON, by hand.
STORED = {
    "kind": "gmm-cell/1",
    "family": "fixed",
    "k": 2,
    "d": 1,
    "mix": "10:90",
    "n": 1000,
    "n_clean": 100,
    "n_noisy": 900,
    "levels": [1.0, 2.0],
    "counts": [100, 900],
    "radius": 2.0,
    "reps": 20,
    "seed": 3,
    "engine": "binned",
    "bins": 150,
    "delta": None,
    "laws": [{"atoms": [-0.5, 1.0], "weights": [0.25, 0.75]}],
    "estimators": [["dmm", "gls"], ["mean-only", "-"]],
}
CONFIG = SimulationConfig(
    families=("fixed",), atoms="-0.5:0.25,1:0.75", mixes=("10:90",), n=(1000,), reps=20, seed=3, bins=150
)


def test_a_cell_is_hashed_and_stored_as_it_always_was():
    (cell,) = plan(CONFIG).cells
    assert json.loads(json.dumps(cell.config)) == STORED


def test_directories_of_finished_simulations_keep_their_names():
    assert set(SEPARATED) <= {cell.directory_name for cell in plan(SimulationConfig()).cells}
    config = SimulationConfig(dim=4, families=("pca-strong",), n=(400,), mixes=("10:90",), reps=6)
    (cell,) = plan(config).cells
    assert cell.directory_name == SPACE


def test_cells_of_an_exchange_table_have_the_same_form():
    (clean, *_, mixed) = plan_exchange(ExchangeConfig(deltas=(2.0,)))
    assert set(mixed.config) == set(clean.config) == set(STORED)
    assert (clean.levels, clean.counts) == ((1.0,), (100_000,))
    assert (mixed.levels, mixed.counts) == ((1.0, 2.0), (100_000, 12_800_000))


def test_a_result_that_was_stored_before_is_found_done(tmp_path):
    (cell,) = plan(CONFIG).cells
    (fresh,) = simulate([cell])
    path = tmp_path / cell.directory_name / "result.json"
    write_sealed(path, {"cell": STORED, "result": {"rows": fresh.rows, "wall_s": 1.0}})
    (found,) = simulate([cell], Ledger(tmp_path))
    assert found.cached
    assert found.rows == fresh.rows
    write_sealed(path, {"cell": {**STORED, "seed": 4}, "result": {"rows": [], "wall_s": 1.0}})
    assert Ledger(tmp_path).load(cell) is None


def test_every_value_of_a_cell_is_in_its_hash_and_its_name_is_not():
    (cell,) = plan(CONFIG).cells
    assert set(cell.config) == {f.name for f in fields(SimulationCell)} - {"name"} | {"kind"}
    assert replace(cell, name="other").hash == cell.hash
    assert len({replace(cell, **change).hash for change in ({"seed": 4}, {"bins": 151}, {"delta": 0.1}, {})}) == 4


def test_a_result_of_other_kinds_is_run_again_even_where_its_seal_holds(tmp_path):
    (cell,) = plan(CONFIG).cells
    ledger = Ledger(tmp_path)
    (done,) = simulate([cell], ledger)
    assert ledger.load(cell) is not None
    good = {"rows": done.rows, "wall_s": 1.0}
    rows = [
        {**done.rows[0], "k": "2"},
        {**done.rows[0], "k": 2.0},
        {**done.rows[0], "w1_mean": None},
        {**done.rows[0], "n_l": -1.0},
        {name: value for name, value in done.rows[0].items() if name != "mix"},
    ]
    others = [{**good, "rows": [row, *done.rows[1:]]} for row in rows]
    for result in [{**good, "wall_s": "x"}, {**good, "rows": 3}, {**good, "rows": done.rows[1:]}, {}, *others]:
        write_sealed(ledger.directory(cell) / "result.json", {"cell": cell.config, "result": result})
        assert ledger.load(cell) is None
        assert next(iter(simulate([cell], ledger))).rows == done.rows
