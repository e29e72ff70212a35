"""The record: what is written is read back, schema 1 still reads, what cannot be read is named with its line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.reading import read_records
from ambient_theory.shared.records import CHECKPOINTS, NATS, SCHEMA, Record, name_of_data, write_records

ROOT = Path(__file__).parents[3]

FULL = {
    "source": "train",
    "dataset": "made-up",
    "n_clean": 60,
    "n_noisy": 540,
    "sigma_n": 0.2,
    "metric": "fd",
    "extractor": "net:12345678",
    "value": 1.25,
    "stderr": 0.01,
    "n_eval": 100,
    "seed": 3,
    "config_hash": "abcdef01",
    "reference": "train-clean",
    "duration_nimg": 4000,
    "level": 0.5,
    "method": {"loss": "x0", "buffer": 1.05},
    "checkpoint": "heldout-best",
    "cell": "10 % clean",
    "regime": "mixture",
    "evaluation": {"n": 100, "seed": 7, "sampler": {"steps": 5}},
    "versions": {"python": "3.11"},
    "wall_s": 1.5,
    "extra": {"floor": 0.5},
}
FIRST = {
    "schema": "ambient.result/1",
    "source": "train",
    "dataset": "fashion8",
    "n_clean": 60,
    "n_noisy": 540,
    "sigma": 0.2,
    "metric": "fd",
    "extractor": "net:12345678",
    "value": 1.25,
    "stderr": 0.01,
    "n_eval": 100,
    "seed": 3,
    "config_hash": "abcdef01",
    "extra": {"cell": "10 % clean", "regime": "mixture", "evaluation": {"seed": 7}, "method": "jackknife", "floor": 1},
}


def simulated(**changes):
    extra = {"sigmas": [0.5, 1.3], "mix": "10:90"}
    return {**FIRST, "source": "simulate", "metric": "w1", "extractor": "none", "sigma": 1.3, "extra": extra, **changes}


def test_a_record_is_read_back_as_it_was_written(tmp_path):
    one = Record(**FULL)
    several = Record(**{**FULL, "sigma_n": (0.1, 0.2), "method": "distilled"})
    bare = Record(**{k: v for k, v in FULL.items() if k not in ("level", "method", "checkpoint", "cell", "evaluation")})
    write_records(tmp_path / "r.jsonl", [one, several, bare])
    assert read_records(tmp_path / "r.jsonl") == [one, several, bare]
    assert json.loads((tmp_path / "r.jsonl").read_text().splitlines()[0]) == {"schema": SCHEMA, **FULL}


def test_schema_1_of_a_training_is_read_into_the_fields_of_schema_2():
    record = Record.from_dict(FIRST)
    assert (record.schema, record.sigma_n, record.cell, record.regime) == (SCHEMA, 0.2, "10 % clean", "mixture")
    assert (record.evaluation, record.checkpoint, record.method) == ({"seed": 7}, "last", None)
    assert record.extra == {"method": "jackknife", "floor": 1}
    assert Record.from_dict(record.to_dict()) == record


def test_schema_1_of_a_simulation_kept_the_total_and_gives_the_added_noise():
    record = Record.from_dict(simulated())
    assert record.sigma_n == pytest.approx(math.sqrt(1.3**2 - 0.5**2))
    assert record.extra["sigma_total"] == 1.3
    alone = Record.from_dict(simulated(sigma=2.0, extra={"sigmas": [2.0]}))  # no clean sample: the unit width
    assert alone.sigma_n == pytest.approx(math.sqrt(3))
    below = Record.from_dict(simulated(sigma=0.7, extra={"sigmas": [0.7]}))  # the width was not the unit, so unknown
    assert below.sigma_n is None
    assert below.extra["sigma_total"] == 0.7


def test_schema_1_of_a_published_score_has_its_method():
    record = Record.from_dict({**FIRST, "source": "published", "extra": {"method": "with consistency loss"}})
    assert (record.method, record.checkpoint, dict(record.extra)) == ("with consistency loss", None, {})


@pytest.mark.parametrize("path", sorted((ROOT / "experiments/results").glob("*.jsonl")), ids=lambda p: p.name)
def test_committed_results_stay_readable(path):
    records = read_records(path)
    assert len(records) == len(path.read_text().splitlines())
    sampled = [r for r in records if r.metric not in ("denoise", NATS)]
    assert all(r.evaluation["sampler"]["steps"] == 12 for r in sampled)
    assert all(r.cell and r.checkpoint in CHECKPOINTS for r in records)
    stored = [json.loads(line) for line in path.read_text().splitlines()]
    sigma_n = [d["sigma"] if d["schema"] == "ambient.result/1" else d["sigma_n"] for d in stored]
    assert [(r.value, r.seed) for r in records] == [(d["value"], d["seed"]) for d in stored]
    assert [r.sigma_n for r in records] == sigma_n


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("/home/someone/photos", "photos"),
        ("photos/", "photos"),
        ("..\\scans\\brain.npz", "brain.npz"),
        ("hf:lab/cells", "cells"),
        ("fashion8", "fashion8"),
    ],
)
def test_no_path_becomes_the_name_of_a_data_set(given, name):
    assert name_of_data(given) == name
    assert Record(**{**FULL, "dataset": given}).dataset == name
    assert Record.from_dict({**FIRST, "dataset": given}).dataset == name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": "guess"}, "source 'guess'"),
        ({"n_clean": -1}, "n_clean"),
        ({"n_clean": True}, "n_clean"),
        ({"sigma_n": -0.1}, "sigma_n"),
        ({"sigma_n": [0.1, None]}, "sigma_n"),
        ({"value": math.nan}, "value"),
        ({"value": "1"}, "value"),
        ({"stderr": -1}, "stderr"),
        ({"stderr": True}, "stderr"),
        ({"level": math.inf}, "level"),
        ({"checkpoint": "best"}, "checkpoint 'best'"),
        ({"evaluation": "fast"}, "evaluation"),
        ({"method": 3}, "method"),
        ({"dataset": 3}, "dataset"),
        ({"sigma": 0.2}, "unknown field"),
        ({"schema": "ambient.result/3"}, "ambient.result/3"),
        ({"schema": None}, "schema None"),
    ],
)
def test_what_is_not_a_record_is_refused_with_file_and_line(change, words, tmp_path):
    good = json.dumps(Record(**FULL).to_dict())
    bad = json.dumps({**Record(**FULL).to_dict(), **change})
    path = tmp_path / "r.jsonl"
    path.write_text(f"{good}\n\n{bad}\n")
    with pytest.raises(DataError, match=r"r\.jsonl:3: ") as error:
        read_records(path)
    assert words in str(error.value)


@pytest.mark.parametrize(("change", "words"), [({"sigma_n": 0.2}, "sigma_n"), ({"extra": []}, "extra")])
def test_schema_1_has_the_fields_of_schema_1_only(change, words):
    with pytest.raises(DataError, match=words):
        Record.from_dict({**FIRST, **change})
