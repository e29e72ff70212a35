"""`ambient runs`: what every run of a folder is, told without training code, and the command that continues it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from invoke import ambient

from ambient_theory.shared.files import exclusive_lock, read_sealed, write_sealed
from ambient_train.runs.directory import RunDirectory
from ambient_train.runs.state import continuing_command, state_of

ROOT = Path(__file__).parents[3]


@pytest.fixture
def runs(tmp_path: Path, trained: Path) -> Path:
    """A folder with one finished run."""
    shutil.copytree(trained, tmp_path / "runs" / "first")
    return tmp_path / "runs"


def entries(runs: Path) -> dict[str, dict[str, Any]]:
    result = ambient("runs", "--runs", runs, "--json")
    assert result.exit_code == 0, result.output
    return {Path(entry["path"]).name: entry for entry in json.loads(result.stdout)["runs"]}


def test_a_finished_run_is_listed_with_the_score_of_its_result(runs: Path) -> None:
    (entry,) = entries(runs).values()
    (point,) = read_sealed(runs / "first" / "result.json")["points"]
    scores = {(r["metric"], r["reference"]): r["value"] for r in point["records"] if r["checkpoint"] == "last"}
    assert (entry["state"], entry["trained_nimg"], entry["duration_nimg"], entry["command"]) == ("done", 96, 96, "")
    assert entry["score"]["value"] == scores["fd", "heldout-clean"]
    assert entry["nats"]["value"] == scores["nats", "heldout-clean"]


def test_the_listed_command_continues_a_stopped_run(
    tmp_path: Path, tiny_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "--config", tiny_config.name, "--outdir", "runs/a b", "--device", "cpu", "--quiet"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/ambient", *words, "--max-time", "0.001"])
    assert ambient(*words, "--max-time", 0.001).exit_code == 75
    entry = entries(tmp_path / "runs")["a b"]
    assert (entry["state"], entry["trained_nimg"], entry["score"]) == ("started", 16, None)
    listed = ambient("runs").stdout
    assert entry["command"] in listed
    program, *rest = shlex.split(entry["command"].replace("--max-time 0.001", "--max-time 1h"))
    assert program == "ambient"
    assert ambient(*rest).exit_code == 0
    assert entries(tmp_path / "runs")["a b"]["state"] == "done"


def test_the_command_is_that_of_the_last_time_and_names_its_folder(tmp_path: Path) -> None:
    manifest = {"command": ["/x/bin/ambient", "train", "--data", "my photos", "--no-score"], "folder": "/data/work"}
    assert continuing_command(tmp_path, manifest) == "cd /data/work && ambient train --data 'my photos'"
    assert continuing_command(tmp_path, manifest, Path("/data/work")) == "ambient train --data 'my photos'"
    by_script = continuing_command(tmp_path, {"command": ["/home/me/first.py"], "folder": "/data/work"})
    assert by_script == (
        f"ambient config show {tmp_path} > run.toml && ambient train --config run.toml --outdir {tmp_path}"
    )


def test_a_run_that_another_process_works_on_is_running(runs: Path) -> None:
    with exclusive_lock(runs / "first" / "lock"):
        entry = entries(runs)["first"]
    assert (entry["state"], entry["command"]) == ("running", "")
    assert entries(runs)["first"]["state"] == "done"


def test_a_run_of_an_older_version_is_told_by_its_scores(runs: Path) -> None:
    manifest = RunDirectory(runs / "first").manifest()
    write_sealed(runs / "first" / "manifest.json", {k: v for k, v in manifest.items() if k != "schedule"})
    found = state_of(runs / "first")
    assert (found.state, found.duration_nimg) == ("done", None)
    (runs / "first" / "result.json").unlink()
    assert state_of(runs / "first").state == "started"


def test_other_folders_are_no_runs_and_a_damaged_one_is_named(runs: Path) -> None:
    (runs / "simulation").mkdir()
    (runs / "simulation" / "manifest.json").write_text('{"schema": "ambient.simulation/1"}')
    (runs / "below" / "deeper").mkdir(parents=True)
    shutil.copytree(runs / "first", runs / "below" / "deeper" / "second")
    text = (runs / "first" / "manifest.json").read_text()
    (runs / "first" / "manifest.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    result = ambient("runs", "--runs", runs)
    assert result.exit_code == 0, result.output
    assert {name: e["state"] for name, e in entries(runs).items()} == {"first": "damaged", "second": "done"}
    assert "checksum does not match" in result.stdout
    assert "below/deeper/second" in result.stdout


@pytest.mark.parametrize(
    ("name", "columns"), [("first", 80), ("photos32-s0.05-c0.8889-seed2-2f4b7126-again", 80), ("first", 20)]
)
def test_the_list_fits_the_terminal_and_every_name_can_be_copied(
    runs: Path, monkeypatch: pytest.MonkeyPatch, name: str, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    (runs / "first").rename(runs / name)
    lines = ambient("runs", "--runs", runs).stdout.splitlines()
    assert sum(name in line.split() for line in lines) == 1
    assert columns < 80 or max(map(len, lines)) <= columns
    apart = name in lines
    assert apart == (len(name) > 20 or columns < 80)
    assert any(line.split()[:2] == (["done", "96/96"] if apart else [name, "done"]) for line in lines)


def test_no_name_steers_a_terminal_or_is_broken(runs: Path) -> None:
    (runs / "first").rename(runs / f"a\x1b[31m{'long' * 20}")
    result = ambient("runs", "--runs", runs)
    assert "\x1b" not in result.stdout
    assert f"a\\x1b[31m{'long' * 20}" in result.stdout.splitlines()


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    result = ambient("runs", "--runs", tmp_path / "nothing")
    assert (result.exit_code, result.stderr.count("\n")) == (3, 1)
    assert "no such folder" in result.stderr
    (tmp_path / "empty").mkdir()
    assert "no runs below" in ambient("runs", "--runs", tmp_path / "empty").stdout


def test_lists_are_made_without_torch(runs: Path) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from cli import app\n"
        "r = CliRunner().invoke(app, sys.argv[1:]); assert r.exit_code == 0, r.output\n"
        "heavy = {'torch', 'numpy', 'scipy', 'matplotlib'} & set(sys.modules); assert not heavy, heavy\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    asked = (["runs", "--runs", str(runs)], ["presets"], ["config", "show", str(runs / "first")])
    for words in (*asked, ["sweep", "init", str(runs / "grid.toml")]):
        call = [sys.executable, "-c", code, *words]
        done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
