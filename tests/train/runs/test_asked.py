"""Whether a run is there is told from manifests alone where they can tell, and never wrongly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ambient_train.runs.asked import find_run, fingerprint, is_scored
from ambient_train.runs.directory import default_directory
from ambient_train.runs.resolve import resolve
from ambient_train.settings.layers import TrainSettings, settings_from
from ambient_train.tasks.train import TrainResult, train

TINY: dict[str, Any] = {
    "batch": 16,
    "duration_nimg": 32,
    "network": {"model_channels": 4, "channel_mult": [1, 2], "emb_channels": 8},
    "evaluation": {"n": 40, "metrics": ["fd"], "denoise": 0, "best": False, "sampler": {"steps": 2}},
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npy"
    np.save(path, np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8))
    return path


def asked(data: object, **more: Any) -> TrainSettings:
    return settings_from({**TINY, "preset": "digits", "data": str(data), **more})


def trained(settings: TrainSettings, runs: Path) -> Path:
    result = train(settings, runs=runs, quiet=True)
    assert isinstance(result, TrainResult)
    return result.directory


def test_the_run_of_a_request_is_found_and_its_points_are_known(data: Path, tmp_path: Path) -> None:
    settings, runs = asked(data), tmp_path / "runs"
    assert (find_run(runs, settings).path, find_run(runs, settings).certain) == (None, True)
    path = trained(settings, runs)
    assert find_run(runs, settings).path == path == default_directory(runs, resolve(settings))
    assert is_scored(path, settings.evaluation, settings.schedule)
    assert not is_scored(path, settings.evaluation, asked(data, duration_nimg=64).schedule)
    other = {**TINY["evaluation"], "n": 50}
    assert not is_scored(path, asked(data, evaluation=other).evaluation, settings.schedule)


def test_another_request_of_the_same_run_is_not_certain_until_the_data_are_read(data: Path, tmp_path: Path) -> None:
    settings, runs = asked(data), tmp_path / "runs"
    path = trained(settings, runs)
    respelled = asked(data.parent / "." / data.name)
    renamed = asked(data.rename(tmp_path / "moved.npy"))
    for same in (renamed,):
        found = find_run(runs, same)
        assert (found.path, found.certain) == (None, False)
        assert default_directory(runs, resolve(same)).name.split("-")[-1] == path.name.split("-")[-1]
    assert find_run(runs, respelled).path is None  # its file has gone


def test_other_settings_are_certainly_not_there(data: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    trained(asked(data), runs)
    for other in (asked(data, seed=1), asked(data, lr=0.5), asked(data, n_clean=5, n_noisy=7, sigma=0.2)):
        found = find_run(runs, other)
        assert (found.path, found.certain) == (None, True)


def test_changed_data_are_noticed(data: Path, tmp_path: Path) -> None:
    settings, runs = asked(data), tmp_path / "runs"
    trained(settings, runs)
    before = fingerprint(str(data))
    np.save(data, np.random.default_rng(1).integers(0, 255, (61, 8, 8), dtype=np.uint8))
    assert fingerprint(str(data)) != before
    assert find_run(runs, settings).path is None


def test_a_folder_is_known_by_all_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "d" / "a" / "1.png").write_bytes(b"1")
    one = fingerprint(str(tmp_path / "d"))
    (tmp_path / "d" / "a" / "2.png").write_bytes(b"2")
    assert fingerprint(str(tmp_path / "d")) != one
    assert fingerprint("digits") == "digits"
