"""A run, an export or a settings file may say anything, its seals may hold: a sentence that names the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invoke import ambient
from other_samples import exports, runs

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.files import read_sealed, write_sealed
from ambient_theory.shared.reading import read
from ambient_train.interchange.load import card, load_trained
from ambient_train.runs.directory import RunDirectory
from ambient_train.runs.state import state_of
from ambient_train.tasks.runs import list_runs


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write(tmp_path, dict(runs()["one of two checkpoints"].files)) / "run"


def edited(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a sealed file and seal it again."""
    body = read_sealed(file)
    change(body)
    write_sealed(file, body)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["config"].update(lr="fast"), "lr must be of type float"),
        (lambda m: m["config"].update(x=1), "unknown config key"),
        (lambda m: m.update(evaluation=[1]), "evaluation must be an object"),
        (lambda m: m["evaluation"].update(n="x"), r"evaluation\.n must be of type int"),
        (lambda m: m.update(schedule=3), "schedule must be an object"),
        (lambda m: m.update(preset={}), "preset must be text"),
        (lambda m: m.update(data=7), "data must be an object"),
        (lambda m: m["data"].update(levels=["a"]), r"data\.levels must be a list of finite numbers"),
    ],
)
def test_a_manifest_of_other_kinds_is_named(run: Path, change: Callable[[dict[str, Any]], object], words: str) -> None:
    edited(run / "manifest.json", change)
    state = state_of(run)
    assert state.state == "damaged"
    assert state.message.startswith(f"{run / 'manifest.json'}: ")
    with pytest.raises(DataError, match=rf"run/manifest\.json: .*{words}"):
        load_trained(run)
    for command in (("config", "show", run), ("generate", run, "--outdir", run.parent / "images", "--device", "cpu")):
        said = ambient(*command)
        assert said.exit_code == 3, said.output
        assert said.stderr.splitlines()[-1].startswith(f"ambient: {run / 'manifest.json'}: ")


def test_a_schedule_of_other_kinds_is_named(run: Path) -> None:
    edited(run / "manifest.json", lambda m: m["schedule"].update(duration_nimg=[1]))
    said = f"{run / 'manifest.json'}: duration_nimg must be of type int, not [1]"
    assert (state_of(run).state, state_of(run).message) == ("damaged", said)
    assert said in ambient("config", "show", run).stderr


@pytest.mark.parametrize(
    "points",
    [
        None,
        3,
        [4],
        [{"nimg": 320}],
        [{"nimg": "320", "evaluation": {}, "records": []}],
        [{"nimg": 320, "evaluation": 3, "records": []}],
        [{"nimg": 320, "evaluation": {}, "records": [{"schema": "x"}]}],
    ],
)
def test_a_result_of_other_kinds_is_none_and_the_run_is_scored_again(run: Path, points: Any) -> None:
    assert state_of(run).records
    edited(run / "result.json", lambda result: result.update(points=points))
    assert RunDirectory(run).result() is None
    assert (state_of(run).state, state_of(run).records) == ("trained", ())
    if not isinstance(points, list) or "records" not in str(points) or "schema" in str(points):
        with pytest.raises(DataError, match=r"run/result\.json: "):
            read(run)


def test_lines_of_metrics_and_skipped_batches_of_other_kinds_are_passed_over_or_named(run: Path) -> None:
    directory = RunDirectory(run)
    whole = directory.read_metrics()
    with open(directory.metrics, "a", encoding="utf-8") as file:
        file.write('{"nimg": true}\n{"nimg": 99999999999999999999}\n[]\n{"nimg": -1}\n')
    assert directory.read_metrics() == whole
    assert directory.rewind_metrics(320) == 3
    assert directory.read_metrics() == whole
    edited(directory.skipped_file, lambda body: body.update(first_samples=[16, "x"]))
    with pytest.raises(DataError, match=r"skipped\.json: not a list"):
        directory.skipped()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(nimg="many"), "nimg must be a whole number"),
        (lambda m: m.update(data=[1]), "data must be an object"),
        (lambda m: m["data"].update(n_noisy="x"), r"data\.n_noisy must be a whole number"),
        (lambda m: m.update(evaluation=3), "does not describe a run"),
    ],
)
def test_an_export_that_remembers_other_kinds_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    hub = write(tmp_path, dict(exports()["export of a run"].files)) / "hub"
    assert card(load_trained(hub))
    edited(hub / "ambient.json", change)
    with pytest.raises(DataError, match=rf"hub/ambient\.json: .*{words}"):
        load_trained(hub)


def test_an_export_that_says_little_of_its_data_has_no_card(tmp_path: Path) -> None:
    hub = write(tmp_path, dict(exports()["export of a run"].files)) / "hub"
    edited(hub / "ambient.json", lambda m: m["data"].pop("levels"))
    assert card(load_trained(hub)) is None


@pytest.mark.parametrize(
    "line",
    [
        'batch = "x"',
        "arch = {a = 1}",
        'colour = "red"',
        "lr = -1",
        'evaluation = {sampler = {steps = "x"}}',
        "consistency_span = 2.0",
        'distill = "nowhere"',
        '"\\u001b[2J" = 1',
    ],
)
def test_what_is_wrong_with_a_config_file_is_said_with_its_name(tmp_path: Path, line: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(line + "\n")
    for command in (("train", "--dry-run", "--config", file), ("config", "show", file)):
        said = ambient(*command)
        assert said.exit_code in (2, 3), said.output
        assert said.stderr.startswith(f"ambient: {file}: ")
        assert "\x1b" not in said.stderr


def test_what_is_wrong_with_a_flag_is_not_said_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("sigma = 0.2\ncorruption = 0.5\n")
    said = ambient("train", "--dry-run", "--config", file, "--n-clean", 4, "--corruption", "0.5")
    assert said.exit_code == 2
    assert str(file) not in said.stderr


def test_a_folder_of_runs_with_a_damaged_one_is_listed(run: Path) -> None:
    edited(run / "manifest.json", lambda m: m["config"].update(lr="fast"))
    listed = list_runs(run.parent)
    assert [r.state for r in listed.runs] == ["damaged"]
    json.dumps(listed.to_dict(), allow_nan=False)
