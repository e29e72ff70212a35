"""Where records lie: run directories, sweeps, files; each is read, counted, and named where it cannot be used."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pytest

from ambient_theory.shared import reading
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.files import write_sealed
from ambient_theory.shared.reading import read
from ambient_theory.shared.records import Record, write_records


def record(seed=0, nimg=100):
    return Record(
        source="train",
        dataset="made-up",
        n_clean=10,
        n_noisy=0,
        sigma_n=None,
        metric="fd",
        extractor="net:12345678",
        value=1.0 + seed,
        stderr=0.1,
        n_eval=10,
        seed=seed,
        config_hash="abcdef01",
        duration_nimg=nimg,
    )


def run(path, *records, nimg=(100, 400)):
    """A finished training: manifest, log of metrics, sealed result with one point for each number of images."""
    points = [{"nimg": n, "evaluation": {}, "records": [r.to_dict() for r in records], "wall_s": 1.0} for n in nimg]
    write_sealed(path / "manifest.json", {"schema": "ambient.run/1"})
    (path / "metrics.jsonl").write_text('{"nimg": 100, "loss": 1.0}\n')
    write_sealed(path / "result.json", {"schema": "ambient.run-result/1", "config_hash": "x", "points": points})
    return path


def test_a_run_directory_gives_the_records_of_all_its_points(tmp_path):
    found = read(run(tmp_path / "one", record(), record(1)))
    assert found.records == (record(), record(1)) * 2
    assert (found.runs, found.files) == (1, 0)
    assert found.sentence() == "4 records of 1 run"


def test_a_directory_of_runs_and_a_sweep_beside_them_is_read_whole(tmp_path):
    run(tmp_path / "one", record(0), nimg=(100,))
    run(tmp_path / "two", record(1), nimg=(100,))
    write_records(tmp_path / "sweep-x" / "records.jsonl", [record(0), record(1)])
    found = read(tmp_path)
    assert (len(found.records), found.runs, found.files) == (4, 2, 1)
    assert found.sentence() == "4 records of 2 runs and 1 file"
    assert read(tmp_path / "one" / "result.json").records == (record(0),)


def test_the_ledger_of_a_simulation_is_no_run(tmp_path):
    write_sealed(tmp_path / "cells" / "a" / "result.json", {"cell": {"k": 2}, "result": {"rows": []}})
    write_records(tmp_path / "records.jsonl", [record()])
    assert (read(tmp_path).runs, len(read(tmp_path).records)) == (0, 1)
    with pytest.raises(DataError, match="not the result of a training"):
        read(tmp_path / "cells" / "a" / "result.json")


def test_a_run_without_scores_and_a_directory_of_other_things_say_so(tmp_path):
    write_sealed(tmp_path / "begun" / "manifest.json", {"schema": "ambient.run/1"})
    (tmp_path / "begun" / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="begun: this run has no scores yet"):
        read(tmp_path / "begun")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="no finished run"):
        read(tmp_path / "other")
    for missing in ("nowhere", "nowhere.jsonl", "nowhere/result.json"):
        with pytest.raises(DataError, match="no such file"):
            read(tmp_path / missing)


def test_a_result_that_was_edited_is_refused_by_name(tmp_path):
    path = run(tmp_path / "one", record()) / "result.json"
    path.write_text(path.read_text().replace('"value": 1.0', '"value": 0.5'))
    with pytest.raises(DataError, match=r"one/result\.json: damaged"):
        read(tmp_path)
    path.write_text("{")
    with pytest.raises(DataError, match=r"one/result\.json: cannot be read"):
        read(tmp_path)


def test_a_record_in_a_run_that_is_none_is_named(tmp_path):
    body = {"schema": "ambient.run-result/1", "points": [{"nimg": 1, "records": [record().to_dict(), {"schema": "x"}]}]}
    write_sealed(tmp_path / "result.json", body)
    with pytest.raises(DataError, match=r"result\.json: record 2: schema 'x' is unknown"):
        read(tmp_path)
    write_sealed(tmp_path / "result.json", {"schema": "ambient.run-result/1", "points": None})
    with pytest.raises(DataError, match="no scored points"):
        read(tmp_path)


def test_lines_that_are_no_json_are_named(tmp_path):
    (tmp_path / "r.jsonl").write_text(json.dumps(record().to_dict()) + "\nnot json\n")
    with pytest.raises(DataError, match=r"r\.jsonl:2"):
        read(tmp_path)


def test_compressed_records_are_the_same_records_and_the_same_bytes_again(tmp_path):
    write_records(tmp_path / "a.jsonl.gz", [record(0), record(1)])
    write_records(tmp_path / "b.jsonl", [record(0), record(1)])
    assert read(tmp_path / "a.jsonl.gz").records == read(tmp_path / "b.jsonl").records
    assert read(tmp_path).sentence() == "4 records of 2 files"
    first = (tmp_path / "a.jsonl.gz").read_bytes()
    write_records(tmp_path / "a.jsonl.gz", [record(0), record(1)])
    assert (tmp_path / "a.jsonl.gz").read_bytes() == first


@pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b"no gzip", lambda b: b[:30] + b"xxxx" + b[34:]])
def test_damaged_compressed_records_are_named(tmp_path, damage):
    file = tmp_path / "a.jsonl.gz"
    write_records(file, [record(k) for k in range(20)])
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: cannot be read"):
        read(file)


def test_a_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LARGEST", 10_000)
    file = tmp_path / "bomb.jsonl.gz"
    file.write_bytes(gzip.compress(b" " * 10**7))
    with pytest.raises(DataError, match="more than 10,000 bytes"):
        read(file)


def test_blank_lines_without_end_are_refused_in_a_moment(tmp_path):
    file = tmp_path / "bomb.jsonl.gz"
    file.write_bytes(gzip.compress(b"\n" * 10**8, 1))
    with pytest.raises(DataError, match=r"bomb\.jsonl\.gz: .* expand to .*bomb"):
        read(file)
    (tmp_path / "long.jsonl").write_bytes(b"\n{" + b" " * (reading.LONGEST_LINE + 2**21))
    with pytest.raises(DataError, match=r"long\.jsonl:2: more than"):
        read(tmp_path / "long.jsonl")


def test_a_small_file_asks_for_little_memory(tmp_path):
    write_records(tmp_path / "r.jsonl.gz", [record()])
    code = (
        "import resource, sys; from ambient_theory.shared.reading import read\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29)); print(len(read(sys.argv[1]).records))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "r.jsonl.gz"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_lines_keep_their_numbers_across_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_PART", 100)
    lines = [json.dumps(record(k).to_dict()) for k in range(5)]
    (tmp_path / "r.jsonl").write_text("\n\n" + "\r\n\n".join(lines))
    assert [r.seed for r in read(tmp_path / "r.jsonl").records] == [0, 1, 2, 3, 4]
    (tmp_path / "r.jsonl").write_text("\n" * 1000 + lines[0] + "\n{}\n")
    with pytest.raises(DataError, match=r"r\.jsonl:1002: "):
        read(tmp_path / "r.jsonl")


@pytest.mark.parametrize("extra", [{"sigmas": [[], 1.0]}, {"sigmas": ["a", "b"]}, {"sigmas": [1.0, None]}])
def test_an_old_record_of_other_kinds_is_a_sentence_with_file_and_line(tmp_path, extra):
    old = {"schema": "ambient.result/1", "source": "simulate", "sigma": 2.0, "extra": extra}
    (tmp_path / "r.jsonl").write_text(json.dumps(old) + "\n")
    with pytest.raises(DataError, match=r"r\.jsonl:1: extra\.sigmas must be a list"):
        read(tmp_path)
    (tmp_path / "r.jsonl").write_text(json.dumps({**old, "sigma": 1e308, "extra": {}}) + "\n")
    with pytest.raises(DataError, match=r"r\.jsonl:1: not a record"):
        read(tmp_path)
