"""`ambient train --distill RUN`: a run like any other, sampled in one step, and what is refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from invoke import ambient

from ambient_train.data.images import to_uint8
from ambient_train.interchange.load import load_trained
from ambient_train.runs.directory import RunDirectory
from ambient_train.settings.config import TrainConfig
from ambient_train.stateless import normal

TINY = """
duration_nimg = 96
max_images = 96
n_clean = 20
n_noisy = 76
sigma = 0.3
batch = 16
precision = "fp32"
lr_ramp_nimg = 32
network = { model_channels = 4, channel_mult = [1, 2], emb_channels = 8 }
evaluation = { n = 40, extractors = ["pixels"], metrics = ["fd"], denoise = 16, sampler = { steps = 2 } }
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`teacher`, and `generator` distilled from it."""
    folder = tmp_path_factory.mktemp("distill")
    (folder / "tiny.toml").write_text(TINY)
    for more in (
        ("--config", folder / "tiny.toml", "--outdir", folder / "teacher"),
        ("--distill", folder / "teacher", "--duration", 64, "--lr", "1e-3", "--outdir", folder / "generator"),
    ):
        result = ambient("train", *more, "--device", "cpu", "--quiet")
        assert result.exit_code == 0, result.output
    return folder


def test_a_distilled_run_says_what_it_is(runs: Path) -> None:
    manifest = RunDirectory(runs / "generator").manifest()
    first = RunDirectory(runs / "teacher").manifest()
    about = manifest["distilled_from"]
    assert (about["run"], about["nimg"], about["config_hash"]) == ("teacher", 96, first["config_hash"])
    config = TrainConfig.from_dict(manifest["config"])
    assert config.teacher.startswith(about["weights"])
    assert (config.n_clean, config.n_noisy, config.sigma_n, config.batch, config.lr) == (20, 76, 0.3, 16, 1e-3)
    assert manifest["evaluation"]["sampler"] == {"one_step_sigma": 2.5}
    stored = RunDirectory(runs / "generator").result()
    assert stored is not None
    records = stored["points"][-1]["records"]
    assert {r["metric"] for r in records} == {"fd"}
    assert {r["checkpoint"] for r in records} == {"last"}
    assert all("distilled" in r["method"] for r in records)
    assert "critic_loss" in json.loads((runs / "generator" / "metrics.jsonl").read_text().splitlines()[-1])


def test_the_same_command_again_is_done(runs: Path) -> None:
    more = ("--distill", runs / "teacher", "--duration", 64, "--lr", "1e-3", "--outdir", runs / "generator")
    again = ambient("train", *more, "--device", "cpu")
    assert again.exit_code == 0, again.output
    assert "already done" in again.stderr


def test_images_are_one_evaluation_of_the_averaged_generator_and_survive_an_export(runs: Path, tmp_path: Path) -> None:
    exported = ambient("export", runs / "generator", tmp_path / "hub", "--quiet")
    assert exported.exit_code == 0, exported.output
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "one-step generator" in card
    assert "It is no denoiser" in card
    found = []
    for number, source in enumerate((runs / "generator", tmp_path / "hub")):
        out = tmp_path / f"images{number}"
        result = ambient("generate", source, "--outdir", out, "--seeds", "0-4", "--format", "npz", "--json", "--quiet")
        assert result.exit_code == 0, result.output
        answer = json.loads(result.stdout)
        assert answer["sampler"] == {"one_step_sigma": 2.5}
        found.append(np.load(answer["path"])["images"])
    assert np.array_equal(*found)
    network = load_trained(runs / "generator").network
    with torch.no_grad():
        z = normal(0, "latent", torch.arange(5), (1, 8, 8))
        expected = to_uint8(network(2.5 * z.double(), torch.tensor(2.5)))
    assert np.array_equal(found[0], expected)


def test_evaluate_scores_as_training_did(runs: Path, tmp_path: Path) -> None:
    result = ambient("evaluate", runs / "generator", "--json", "--quiet", "--memorisation", "--outdir", tmp_path / "s")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    stored = RunDirectory(runs / "generator").result()
    assert stored is not None
    expected = {(r["metric"], r["reference"]): r["value"] for r in stored["points"][-1]["records"]}
    values = {(s["metric"], s["reference"]): s["value"] for s in answer["scores"]}
    assert values == pytest.approx(expected)
    assert answer["denoise"] is None
    assert "memorisation" in answer


def test_what_cannot_be_distilled_is_refused_in_a_sentence(runs: Path, tmp_path: Path) -> None:
    teacher, generator = runs / "teacher", runs / "generator"
    for more, code, words in (
        (("--distill", tmp_path / "nothing"), 3, "no run of ambient train to distill"),
        (("--distill", generator), 2, "is itself distilled"),
        (("--distill", teacher, "--max-images", 90, "--n-clean", 20, "--n-noisy", 70), 2, "trained on other images"),
        (("--distill", teacher, "--sigma", 0.4), 2, "sigma: 0.3 -> 0.4"),
        (("--distill", teacher, "--weight", "y"), 2, "weight: 'x0' -> 'y'"),
        (("--distill", teacher, "--steps", 4), 2, "does not apply to a distilled run"),
        (("--distill", teacher, "--n-denoise", 20), 2, "does not apply to a distilled run"),
        (("--distill", teacher, "--consistency", 1), 2, "no consistency loss"),
        (("--distill", teacher, "--shard"), 2, "--shard"),
        (("--distill", teacher, "--distill-at", "1k"), 2, "no checkpoint after 1000 images: give one of"),
        (("--distill-alpha", 1), 2, "without a run to distill"),
    ):
        result = ambient("train", *more, "--outdir", tmp_path / "out", "--device", "cpu", "--quiet")
        assert result.exit_code == code, (more, result.output)
        assert words in result.stderr, (more, result.stderr)
        assert not (tmp_path / "out" / "manifest.json").exists()
    for command, more in (("generate", ("--steps", 4)), ("evaluate", ("--n-denoise", 20)), ("restore", ())):
        result = ambient(command, generator, *more, "--outdir", tmp_path / command, "--quiet")
        assert result.exit_code == 2, (command, result.output)
        assert "distilled generator" in result.stderr


GRID = """
name = "two_stages"
seeds = [0]

[base]
data = "digits"
max_images = 96
duration_nimg = 64
batch = 16
lr = 1e-2
precision = "fp32"
network = { model_channels = 4, channel_mult = [1, 2], emb_channels = 8 }
evaluation = { n = 40, extractors = ["pixels"], metrics = ["fd"], denoise = 16, best = false, sampler = { steps = 2 } }

[[cell]]
name = "noisy"
corruption = 1.0
sigma = [0.2, 0.3]

[[cell]]
name = "distilled"
distill = "noisy"
sigma = [0.3]
lr = 1e-3
"""


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_cell_distills_another_one_and_is_skipped_when_done(tmp_path: Path, workers: int) -> None:
    (tmp_path / "grid.toml").write_text(GRID)
    runs = tmp_path / "runs"
    command = ("sweep", "run", tmp_path / "grid.toml", "--runs", runs, "--device", "cpu", "--json", "--quiet")
    first = ambient(*command, "--workers", workers)
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout)["cells"] == {"done": 3}
    made = {}
    for path in runs.glob("*/manifest.json"):
        manifest = RunDirectory(path.parent).manifest()
        made[manifest["cell"]] = manifest
    about = made["distilled sigma 0.3"]["distilled_from"]
    assert about["config_hash"] == made["noisy sigma 0.3"]["config_hash"]
    assert made["distilled sigma 0.3"]["config"]["lr"] == 1e-3
    status = ambient("sweep", "status", tmp_path / "grid.toml", "--runs", runs, "--json")
    assert json.loads(status.stdout)["counts"] == {"done": 3}
    times = {p: p.stat().st_mtime_ns for p in runs.glob("*/result.json")}
    again = ambient(*command, "--workers", 1)
    assert json.loads(again.stdout)["summary"] == json.loads(first.stdout)["summary"]
    assert {p: p.stat().st_mtime_ns for p in runs.glob("*/result.json")} == times


def test_a_grid_names_the_cell_that_is_not_above(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(GRID.replace('distill = "noisy"', 'distill = "clean"'))
    result = ambient("sweep", "status", tmp_path / "grid.toml", "--runs", tmp_path / "runs")
    assert result.exit_code == 2
    assert "distill names 'clean sigma 0.3', and no cell above it is called so" in result.stderr


def test_the_plan_of_a_grid_needs_no_teacher_yet(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(GRID)
    result = ambient("sweep", "plan", tmp_path / "grid.toml", "--json")
    assert result.exit_code == 0, result.output
    assert [c["cell"] for c in json.loads(result.stdout)["cells"]][-1] == "distilled sigma 0.3"
