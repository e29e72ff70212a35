"""`ambient data corrupt` writes the very noise that training adds, and training takes it as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_files import png, rgb, write_folder
from typer.testing import CliRunner

from ambient_theory.shared.errors import DataError
from ambient_train.data.load import load_images
from ambient_train.data.prepare.corrupt import write_corrupted
from ambient_train.data.prepare.options import CorruptOptions
from ambient_train.runs.resolve import make_training_set, resolve
from ambient_train.settings.layers import settings_from
from ambient_train.training.loop import train
from ambient_train.training.state import TrainState
from cli import app

TINY: dict[str, Any] = {
    "batch": 16,
    "precision": "fp32",
    "lr_ramp_nimg": 32,
    "weight": "optimal",
    "xflip": True,
    "preset": "digits",
    "network": {"model_channels": 4, "channel_mult": [1, 2], "emb_channels": 8},
}


def pair(tmp_path: Path, sigma: float, **more: Any) -> tuple[Any, Any]:
    """The same training resolved on the digits with synthetic noise, and on the file that holds that noise."""
    dest = tmp_path / "noisy.npz"
    write_corrupted("digits", dest, CorruptOptions(sigma_n=sigma, share=0.9, seed=3))
    common = {**TINY, "corruption": 0.9, "seed": 3, **more}
    return resolve(settings_from({**common, "data": "digits", "sigma": sigma})), resolve(
        settings_from({**common, "data": str(dest)})
    )


@pytest.mark.parametrize("sigma", [0.25, 0.2])
def test_images_noise_held_out_part_and_order_are_those_of_training(tmp_path: Path, sigma: float) -> None:
    fresh, written = (make_training_set(r.config, r.source) for r in pair(tmp_path, sigma))
    assert (written.n_clean, written.n_noisy) == (fresh.n_clean, fresh.n_noisy) == (144, 1298)
    assert not written.added.any()  # never noised again
    assert fresh.added.sum() == 1298
    assert (written.source.ids == fresh.source.ids).all()
    every = torch.arange(len(fresh))
    assert torch.equal(written.batch(every), fresh.batch(every))
    assert torch.equal(written.labels(every), fresh.labels(every))
    levels = set(written.sigma_n.tolist())
    assert levels == {0.0, float(np.float32(sigma))}
    ours, theirs = (load_images(name, split="heldout") for name in (str(tmp_path / "noisy.npz"), "digits"))
    assert (ours.ids == theirs.ids).all()
    assert (ours.pixels() == theirs.pixels()).all()
    assert not ours.sigma_n.any()
    assert np.abs(written.source.images).max() > 1 + sigma  # not clipped


def test_training_on_the_file_is_training_on_the_source_bit_for_bit(tmp_path: Path) -> None:
    weights = []
    for resolved in pair(tmp_path, 0.25):  # exact in float32, so that even the levels are equal
        data = make_training_set(resolved.config, resolved.source)
        state = TrainState(resolved.config, data.shape, 0, torch.device("cpu"))
        losses = [end.loss for end in train(state, data, 64)]
        weights.append((losses, [p.detach() for p in state.network.parameters()]))
    (loss_a, a), (loss_b, b) = weights
    assert loss_a == loss_b
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def test_names_of_classes_and_notes_survive(tmp_path: Path) -> None:
    files = {f"{c}/{i}.png": png(x) for c in ("10", "9") for i, x in enumerate(rgb(20))}
    root = write_folder(tmp_path / "d", {**files, "levels.xlsx": b"x"})
    done = write_corrupted(str(root), tmp_path / "n.npz", CorruptOptions(sigma_n=0.2))
    assert "not read: levels.xlsx" in done.notes[0]
    written, source = load_images(str(tmp_path / "n.npz")), load_images(str(root), split="train")
    assert written.classes == source.classes == ("9", "10")
    np.testing.assert_array_equal(written.labels, source.labels)
    assert written.notes == ()


def test_another_seed_or_level_writes_other_noise(tmp_path: Path) -> None:
    files = []
    for number, (sigma, seed) in enumerate([(0.25, 3), (0.25, 4), (0.5, 3)]):
        dest = tmp_path / f"{number}.npz"
        write_corrupted("digits", dest, CorruptOptions(sigma_n=sigma, share=0.5, seed=seed))
        files.append(np.load(dest))
    first, other_seed, doubled = files
    assert ((first["sigma"] > 0) != (other_seed["sigma"] > 0)).any()
    assert ((first["sigma"] > 0) == (doubled["sigma"] > 0)).all()
    clean = load_images("digits").pixels()
    np.testing.assert_allclose(doubled["images"] - clean, 2 * (first["images"] - clean), atol=1e-6)
    untouched = first["sigma"] == 0
    assert (first["images"][untouched] == clean[untouched]).all()


def test_the_same_command_writes_the_same_bytes_and_says_what_it_wrote(tmp_path: Path) -> None:
    options = ["--sigma", "0.2", "--share", "0.9", "--resolution", "4", "--quiet"]
    for name in ("a.npz", "b.npz"):
        result = CliRunner().invoke(app, ["data", "corrupt", "digits", str(tmp_path / name), *options, "--json"])
        assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["count"], answer["clean"], answer["noisy"], answer["heldout"]) == (1797, 144, 1298, 355)
    assert answer["shape"] == [1, 4, 4]
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    checked = CliRunner().invoke(app, ["data", "check", str(tmp_path / "a.npz"), "--json"])
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout)["heldout"] == 355


def test_without_any_wish_training_takes_the_clean_and_noisy_images_of_the_file(tmp_path: Path) -> None:
    write_corrupted("digits", tmp_path / "n.npz", CorruptOptions(sigma_n=0.5, share=0.75))
    config = resolve(settings_from({**TINY, "data": str(tmp_path / "n.npz")})).config
    assert (config.n_clean, config.n_noisy) == (360, 1082)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["digits", "d.zip", "--sigma", "0.2"], 2, ".npz"),
        (["digits", "d.npz", "--sigma", "0"], 2, "> 0"),
        (["digits", "d.npz", "--sigma", "nan"], 2, "sigma"),
        (["digits", "d.npz", "--sigma", "inf"], 2, "sigma"),
        (["digits", "d.npz", "--sigma", "0.2", "--share", "1.5"], 2, "share"),
        (["digits", "there.npz", "--sigma", "0.2"], 2, "--overwrite"),
        (["digits", "none/d.npz", "--sigma", "0.2"], 3, "directory"),
        (["nowhere", "d.npz", "--sigma", "0.2"], 3, "nowhere"),
        (["photos32:stride=16", "d.npz", "--sigma", "0.2"], 2, "neither"),
    ],
)
def test_bad_input_is_one_sentence_with_its_exit_code(
    arguments: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.npz").write_bytes(b"mine")
    result = CliRunner().invoke(app, ["data", "corrupt", *arguments, "--quiet"])
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["there.npz"]
    assert (tmp_path / "there.npz").read_bytes() == b"mine"


@pytest.mark.parametrize("heldout", [np.zeros(6, bool), np.ones(6, bool), np.zeros(5, bool), np.zeros(6, np.int64)])
def test_a_wrong_column_of_held_out_images_is_named(tmp_path: Path, heldout: np.ndarray) -> None:
    np.savez(tmp_path / "d.npz", images=np.zeros((6, 8, 8), np.uint8), heldout=heldout)
    with pytest.raises(DataError, match="heldout"):
        load_images(str(tmp_path / "d.npz"))
