"""A run's data are known by their content: found where they were read from, or at the place that is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ambient_theory.shared.errors import DataError
from ambient_train.runs.resolve import load_training_images
from ambient_train.runs.whereabouts import saying_how_to_move, with_data_at, with_data_found
from ambient_train.settings.config import TrainConfig


def _images(path: Path, seed: int) -> str:
    path.parent.mkdir(exist_ok=True)
    np.savez(path, images=np.random.default_rng(seed).integers(0, 256, (12, 1, 8, 8), dtype=np.uint8))
    return str(path)


def _config(data: str) -> TrainConfig:
    images = load_training_images(data, None, 0.25, None)
    return TrainConfig(data=data, holdout=0.25, data_hash=images.content_hash[:16])


def test_data_at_a_named_place_are_the_runs_own_only_with_the_same_images(tmp_path: Path) -> None:
    config = _config(_images(tmp_path / "a.npz", 1))
    same, other = _images(tmp_path / "moved" / "b.npz", 1), _images(tmp_path / "c.npz", 2)
    found = with_data_at(config, same, None)
    assert found is not None
    assert found.data == same
    assert found.hash == config.hash
    assert with_data_at(config, other, None) is None
    assert with_data_at(config, same, 4) is None  # at another resolution they are other images
    assert with_data_at(config, str(tmp_path / "nothing.npz"), None) is None


def test_a_relative_path_is_found_again_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = _images(tmp_path / "a.npz", 1)
    config = TrainConfig(data="a.npz")
    monkeypatch.chdir(tmp_path)
    assert with_data_found(config, {"path": stored}).data == "a.npz"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert with_data_found(config, {"path": stored}).data == stored
    assert with_data_found(config, {"path": str(tmp_path / "gone.npz")}).data == "a.npz"
    assert with_data_found(config, None).data == "a.npz"


def test_only_an_error_about_data_that_are_not_there_says_how_to_name_their_place(tmp_path: Path) -> None:
    for data, said in ((str(tmp_path / "gone.npz"), True), (_images(tmp_path / "a.npz", 1), False), ("digits", False)):
        with pytest.raises(DataError) as caught, saying_how_to_move(TrainConfig(data=data)):
            raise DataError("what is wrong")
        assert ("give --data" in str(caught.value)) == said
