"""What people do with data and results, each once found to go wrong: noise that came with the data, data that move,
sets without a floor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from invoke import ambient
from number_files import counts
from PIL import Image
from scipy.ndimage import gaussian_filter

TINY = [
    "--width",
    "8",
    "--channel-mult",
    "1,1",
    "--batch",
    "32",
    "--device",
    "cpu",
    "--n-eval",
    "64",
    "--n-denoise",
    "8",
    "--steps",
    "4",
]


def answer(*arguments: object) -> dict:
    result = ambient(*arguments, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "records.jsonl").read_text().splitlines()]


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """120 images of which half came with noise .2, stated with the data."""
    rng = np.random.default_rng(8)
    x = rng.uniform(-0.5, 0.5, (120, 1, 1)) + np.zeros((120, 8, 8))
    sigma = np.repeat([0, 0.2], 60)
    np.savez(
        tmp_path / "given.npz",
        images=(x + rng.normal(0, 1, x.shape) * sigma[:, None, None]).astype(np.float32),
        sigma=sigma,
    )
    return tmp_path / "given.npz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    rng = np.random.default_rng(0)
    for i in range(60):
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(path / f"{i}.png")
    return path


def test_the_records_of_evaluate_are_those_of_train(given: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained = answer("train", "--data", given, *TINY, "--duration", 256, "--outdir", run)["records"]
    answer("evaluate", run, "--outdir", tmp_path / "scores")
    scored = records(tmp_path / "scores")
    assert {r["sigma_n"] for r in scored} == {0.2}
    mine = [r for r in trained if r["checkpoint"] == "last"]
    assert len(scored) == len(mine) > 10
    for a, b in zip(scored, mine, strict=True):
        assert a["value"] == pytest.approx(b["value"], rel=1e-5)  # the same weights, in another memory format
        for name in set(a) - {"value", "stderr", "wall_s", "extra"}:
            assert a[name] == b[name], name
        assert a["extra"].keys() == b["extra"].keys()


def test_records_against_other_images_never_pass_for_those_of_the_runs_own(folder: Path, tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other.npz"
    np.savez(other, images=np.random.default_rng(5).integers(0, 80, (60, 1, 8, 8), dtype=np.uint8))
    answer("train", "--data", folder, *TINY, "--duration", 64, "--outdir", run)
    common = ("--extractor", "smallcnn", "--metric", "fd")
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    answer("evaluate", run, "--data", moved, *common, "--outdir", tmp_path / "own")  # its own, wherever they are
    assert {r["reference"] for r in records(tmp_path / "own")} == {"heldout-clean", "train-clean"}
    apart = []
    for more in (("--data", other), ("--resolution", 4)):
        found = answer("evaluate", run, *more, *common, "--outdir", tmp_path / more[0].strip("-"))
        scored = records(tmp_path / more[0].strip("-"))
        apart.append({r["reference"] for r in scored if r["metric"] == "fd"})
        assert all(r["reference"] == "heldout-clean" for r in scored if r["metric"] != "fd")  # denoising its own images
        assert any("stand apart" in c for c in found["cautions"])
    assert all(" of other " in name for name in apart[0])
    assert all(" of data " in name for name in apart[1])
    assert not apart[0] & apart[1]


def test_noise_that_came_with_the_data_is_recorded_whatever_is_added(given: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    half = ambient("train", "--data", given, "--sigma", 0.5, *TINY, "--duration", 256, "--outdir", run)
    assert (half.exit_code, "adds noise to no image" in half.stderr) == (2, True)
    assert not run.exists()
    trained = answer(
        "train", "--data", given, "--sigma", 0.5, "--corruption", 0.9, *TINY, "--duration", 256, "--outdir", run
    )
    assert {tuple(r["sigma_n"]) for r in trained["records"]} == {(0.2, 0.5)}
    said = ambient("train", "--data", given, *TINY, "--duration", 64, "--outdir", tmp_path / "other")
    assert "came with noise: 5" in said.stderr
    assert "at 0.2" in said.stderr


def test_data_may_move_and_be_spelled_otherwise(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer("train", "--data", "data", *TINY, "--duration", 256, "--outdir", "run")
    assert answer("train", "--data", folder.resolve(), *TINY, "--duration", 512, "--outdir", "run")["nimg"] == 512
    shutil.move("data", "elsewhere")
    assert answer("train", "--data", "elsewhere", *TINY, "--duration", 768, "--outdir", "run")["nimg"] == 768
    assert answer("evaluate", "run")["scores"]
    shutil.move("elsewhere", "third")
    lost = ambient("evaluate", "run")
    assert (lost.exit_code, "give --data" in lost.stderr) == (3, True)
    assert answer("evaluate", "run", "--data", "third")["scores"]
    shutil.move("run", "archive")  # the run itself may move, too
    assert answer("evaluate", "archive", "--data", "third")["scores"]
    # other images are other data
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "third" / "60.png")
    other = ambient("train", "--data", "third", *TINY, "--duration", 768, "--outdir", "archive")
    assert (other.exit_code, "data_hash" in other.stderr) == (2, True)


def test_two_folders_of_one_law_have_a_floor_or_a_word(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, n in (("a", 60), ("b", 200)):
        (tmp_path / name).mkdir()
        for i in range(n):
            Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    found = answer("evaluate", tmp_path / "a", "--reference", tmp_path / "b", "--extractor", "pixels")
    score = next(s for s in found["scores"] if s["metric"] == "fd")
    assert score["floor"] > 0.5 * score["value"]
    assert any("256 dimensions" in c for c in found["cautions"])


def test_a_damaged_held_out_image_is_found_before_training(tmp_path: Path) -> None:
    for split, n in (("train", 12), ("test", 4)):
        (tmp_path / "d" / split).mkdir(parents=True)
        for i in range(n):
            pixels = np.random.default_rng(i).integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "d" / split / f"{i}.png")
    bad = tmp_path / "d" / "test" / "0.png"
    bad.write_bytes(bad.read_bytes()[:60])
    result = ambient("train", "--data", tmp_path / "d", *TINY, "--duration", 64, "--outdir", tmp_path / "run")
    assert result.exit_code == 3
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wrong", [["--micro-batch", "5"], ["--lr", "0"], ["--sigma", "0.2"], ["--cond"], ["--stop-sigma", "-1"]]
)
def test_a_refused_command_leaves_nothing_behind(folder: Path, tmp_path: Path, wrong: list[str]) -> None:
    run = tmp_path / "run"
    result = ambient("train", "--data", folder, *TINY, "--duration", 64, "--outdir", run, *wrong)
    assert result.exit_code == 2
    assert not run.exists()


def test_a_run_is_sampled_and_scored_as_it_remembers(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    own = ["--steps", 5, "--sigma-min", 0.05, "--sigma-max", 20, "--eval-seed", 7]
    answer("train", "--data", folder, *TINY, *own, "--duration", 64, "--outdir", run)
    made = answer("generate", run, "--seeds", "0-3", "--outdir", tmp_path / "images")
    assert {k: made["sampler"][k] for k in ("steps", "sigma_min", "sigma_max")} == {
        "steps": 5,
        "sigma_min": 0.05,
        "sigma_max": 20.0,
    }
    scored = answer("evaluate", run)["evaluation"]
    assert (scored["n"], scored["seed"], scored["sampler"]["steps"]) == (64, 7, 5)
    assert answer("evaluate", run, "--steps", 3, "--n", 50)["evaluation"]["sampler"]["steps"] == 3
    shown = ambient("evaluate", run, "--quiet").stdout
    assert "5 steps from sigma 20.0 to 0.05" in shown
    # an export remembers, too
    assert ambient("export", run, tmp_path / "exported", "--quiet").exit_code == 0
    again = answer("generate", tmp_path / "exported", "--seeds", "0-3", "--outdir", tmp_path / "again")
    assert again["sampler"] == made["sampler"]


def test_a_folder_with_other_results_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        answer(
            "train",
            "--data",
            folder,
            *TINY,
            "--duration",
            64,
            "--seed",
            len(name) + ord(name[0]),
            "--outdir",
            tmp_path / name,
        )
    for command, place in (("generate", "images"), ("evaluate", "scores")):
        assert ambient(command, tmp_path / "one", "--outdir", tmp_path / place, "--quiet").exit_code == 0
        assert ambient(command, tmp_path / "one", "--outdir", tmp_path / place, "--quiet").exit_code == 0
        other = ambient(command, tmp_path / "two", "--outdir", tmp_path / place, "--quiet")
        assert (other.exit_code, "choose another --outdir" in other.stderr) == (2, True)


def test_a_noisy_only_run_says_that_its_samples_go_below_its_data(tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).normal(0, 0.6, (80, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "scans.npz", images=noisy, sigma=np.full(80, 0.3, np.float32))
    said = ambient("train", "--data", tmp_path / "scans.npz", *TINY, "--duration", 64, "--outdir", tmp_path / "run")
    assert said.exit_code == 0, said.output
    assert "give --stop-sigma 0.3" in said.stderr
    assert "heldout-noisy" in (tmp_path / "run" / "result.json").read_text()  # the proximal score
    loud = ambient("generate", tmp_path / "run", "--seeds", "0-1", "--outdir", tmp_path / "a")
    assert "give --stop-sigma 0.3" in loud.stderr
    still = ambient("generate", tmp_path / "run", "--seeds", "0-1", "--stop-sigma", 0.3, "--outdir", tmp_path / "b")
    assert "note:" not in still.stderr


def test_twelve_bit_counts_keep_their_levels_and_float_tiffs_are_read(tmp_path: Path) -> None:
    images = counts(60, 32)
    for folder, dtype, kind in (("tif16", np.uint16, "tif"), ("png16", np.uint16, "png"), ("float", np.float32, "tif")):
        (tmp_path / folder).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image.astype(dtype)).save(tmp_path / folder / f"cell{i:03d}.{kind}")
        report = answer("data", "check", tmp_path / folder)
        assert report["usable"]
        assert any("become -1 to 1" in note for note in report["notes"])
        answer("data", "prepare", tmp_path / folder, tmp_path / f"{folder}.npz")
        with np.load(tmp_path / f"{folder}.npz") as stored:
            assert stored["images"].dtype == np.float32
            assert len(np.unique(stored["images"])) == len(np.unique(images))


def test_training_and_testing_folders_are_parts_and_clean_and_noisy_ones_are_asked_about(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    for part, n in (("Training", 20), ("Testing", 6)):
        for name in ("glioma", "meningioma", "notumor", "pituitary"):
            folder = tmp_path / "brain" / part / name
            folder.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(folder / f"Tr-{i:04d}.png")
    report = answer("data", "check", tmp_path / "brain")
    assert (report["classes"], report["heldout"]) == (4, 24)
    for kind in ("clean", "noisy"):
        (tmp_path / "pairs" / kind).mkdir(parents=True)
    for i in range(40):
        x = np.full((16, 16), rng.uniform(60, 190))
        for kind, level in (("clean", 0), ("noisy", 25)):
            y = np.clip(x + rng.normal(0, level, x.shape), 0, 255).astype(np.uint8)
            Image.fromarray(y).save(tmp_path / "pairs" / kind / f"{i:03d}.png")
    refused = ambient("train", "--data", tmp_path / "pairs", "--duration", 1024, "--dry-run")
    assert (refused.exit_code, "kinds of noise" in refused.stderr) == (3, True)
    assert ambient("data", "check", tmp_path / "pairs", "--quiet").exit_code == 3
    answer("data", "noise", tmp_path / "pairs", "--table", tmp_path / "pairs" / "dataset.csv")
    dry = ambient("train", "--data", tmp_path / "pairs", "--duration", 1024, "--dry-run", "--quiet")
    assert dry.exit_code == 0, dry.output
    config = dict(line.split(" = ", 1) for line in dry.stdout.splitlines() if " = " in line)
    assert int(config["n_noisy"]) == int(config["n_clean"]) > 30


def test_files_of_other_kinds_are_counted_with_the_way_to_read_them(folder: Path) -> None:
    for i in range(200):
        for kind in ("dcm", "fits", "nii.gz", "heic", "jp2"):
            (folder / f"{i}.{kind}").write_bytes(b"x")
    (note,) = [note for note in answer("data", "check", folder)["notes"] if "not read" in note]
    assert note.startswith("1,000 files are not read")
    for words in ("200 .dcm (for pydicom)", "200 .heic (for pillow-heif)", "200 .fits (read where it lies alone)"):
        assert words in note


@pytest.mark.parametrize("kind", ["wrong", "correlated", "rician"])
def test_a_stated_level_that_the_pixels_contradict_is_named_with_the_one_seen(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(8)

    def fields(scale: float) -> np.ndarray:
        return np.stack([gaussian_filter(rng.normal(0, 1, (32, 32)), scale) for _ in range(60)])

    x, c = fields(6), fields(1.2)
    x *= 0.7 / np.abs(x).max()
    one, two = rng.normal(0, 0.3, (2, *x.shape))
    y, stated = {
        "wrong": (x + one, 0.03),
        "correlated": (x + 0.3 * c / c.std(), 0.3),
        "rician": (2 * np.abs((x + 1) / 2 + one + 1j * two) - 1, 0.6),
    }[kind]
    np.savez(tmp_path / "a.npz", images=y.astype(np.float32), sigma=np.full(60, stated))
    notes = answer("data", "check", tmp_path / "a.npz")["notes"]
    assert any(f"{stated} stated" in note and "seen" in note for note in notes)
    assert any(f"{stated} is stated" in note for note in answer("data", "noise", tmp_path / "a.npz")["notes"])
