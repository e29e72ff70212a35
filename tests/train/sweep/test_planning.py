"""Costs are measured on small micro-batches, and published grids are planned without their data."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.runs.resolve import make_training_set, resolve
from ambient_train.runs.scoring_work import scoring_work
from ambient_train.settings.layers import settings_from
from ambient_train.settings.presets import PRESETS
from ambient_train.sweep.grid import read_grid
from ambient_train.sweep.plan import Plan, PlanRow, plan_grid, stated_images
from ambient_train.sweep.pool import resolve_cell
from ambient_train.training import cost as timing
from ambient_train.training.cost import REFERENCE_TIMES, measure, reference_time, saved_bytes
from cli import app

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
TINY = {
    "data": "digits",
    "batch": 512,
    "network": {"model_channels": 4, "channel_mult": [1, 2], "emb_channels": 8},
    "precision": "fp32",
}


@functools.cache
def published_plan(name: str) -> Plan:
    """Planned here, where none of the data is."""
    return plan_grid(EXPERIMENTS / f"{name}.toml")


def test_no_pass_is_larger_than_the_micro_batch_and_a_slow_one_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = resolve(settings_from(TINY))
    data = make_training_set(resolved.config, resolved.source)
    sizes: list[int] = []
    prepare = timing.prepare_batch

    def spy(config, data, table, sample, label_dim, device):  # type: ignore[no-untyped-def]
        sizes.append(len(sample))
        return prepare(config, data, table, sample, label_dim, device)

    monkeypatch.setattr(timing, "prepare_batch", spy)
    cost = measure(resolved.config, data, 0, torch.device("cpu"), micro_batch=8)
    assert max(sizes) <= 8
    assert cost.micro_batch <= 8
    assert cost.train_img_per_s > 0
    assert cost.evaluations_per_s > 0
    sizes.clear()
    slow = measure(resolved.config, data, 0, torch.device("cpu"), budget_s=0.0)
    assert sizes == [1]
    assert slow.micro_batch == 1


def test_saved_memory_of_a_linear_layer_is_its_input_once_without_the_weights() -> None:
    layer = nn.Linear(100, 50)
    x = torch.ones(8, 100)
    with saved_bytes(list(layer.parameters())) as total:
        (layer(x).exp() + layer(x)).sum().backward()
    assert total[0] == 4 * (8 * 100 + 8 * 50)  # x is kept by both layers, exp keeps its result


def test_memory_is_linear_in_the_images_and_its_state_is_five_copies_of_the_weights() -> None:
    resolved = resolve(settings_from(TINY))
    data = make_training_set(resolved.config, resolved.source)
    cost = measure(resolved.config, data, 0, torch.device("cpu"))
    assert cost.state_bytes == 5 * 4 * cost.parameters
    assert cost.image_bytes > 4 * 64  # more than one image
    assert cost.activation_bytes(512) - cost.activation_bytes(256) == 256 * cost.image_bytes
    state = timing.TrainState(resolved.config, data.shape, 0, torch.device("cpu"))
    table = timing.LevelTable.of(data.sigma_n)
    batch = timing.prepare_batch(resolved.config, data, table, torch.arange(64), 0, torch.device("cpu"))
    with saved_bytes(list(state.network.parameters())) as total:
        timing.batch_loss(resolved.config, state.network, batch, table, state.errors)
    assert cost.activation_bytes(64) == pytest.approx(total[0], rel=0.02)


@pytest.mark.parametrize(
    ("name", "images", "parameters", "gpu_hours"),
    [
        ("cifar10", 50_000, 55_733_891, 384),
        ("celeba64", 30_000, 61_805_571, 768),
        ("imagenet64", 1_281_167, None, 9984),
    ],
)
def test_published_grids_are_planned_without_their_data(
    name: str, images: int, parameters: int | None, gpu_hours: float
) -> None:
    plan = published_plan(name)
    amounts = [(r.n_clean, r.n_noisy, r.sigma_n) for r in plan.rows]
    tenth = round(images * 0.1)
    assert amounts == [
        (images, 0, 0.0),
        (0, images, 0.2),
        (tenth, 0, 0.0),
        (images - round(images * 0.9), round(images * 0.9), 0.2),
    ]
    for row in plan.rows:
        assert row.data == "stated"
        assert row.hours is None
        assert row.train_nimg == PRESETS[name].duration_nimg
        assert row.generate_nimg == 2 * 50_000  # by the last and by the held-out best checkpoint, at most
        assert parameters is None or row.parameters == parameters
        assert row.reference_gpu_hours is not None
        assert gpu_hours < row.reference_gpu_hours < 1.015 * gpu_hours  # the images of the scores come on top
    assert "EDM" in plan.reference


def test_the_table_of_a_plan_names_the_source_of_its_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = CliRunner().invoke(app, ["sweep", "plan", str(EXPERIMENTS / "cifar10.toml")])
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    assert "200M" in words
    assert "4 trainings, about 1,545 GPU-hours" in words
    assert "about 2 days on 8 V100" in words


@pytest.mark.parametrize("width", [60, 80, 140])
def test_no_column_of_a_plan_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    row = PlanRow("90 % noisy + 10 % clean", 2, 547, 493, 0.2, 2_000_000, 8000, 10**6, "here", 250.0, 0.17, 21.0)
    Plan("grid", [row], "one CPU thread of this machine", "EDM", []).show()
    text = capsys.readouterr().out
    table = [line for line in text.splitlines() if line and line[0] in "│┃"]
    assert max(map(len, table)) <= width
    for word in ("clean", "sigma", "weights", "time here", "scores", "GPU h", "10.4 days", "17%", "21"):
        assert any(word in line for line in table), word


def test_a_plan_says_the_share_of_the_scores_and_names_a_large_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = timing.StepCost(1, 1, 200.0, 1000.0, 0, 0, 0)
    monkeypatch.setattr("ambient_train.sweep.plan.measure", lambda *_: rates)
    shares = []
    for n in (40, 4000):
        path = tmp_path / f"{n}.toml"
        path.write_text(f'[base]\ndata = "digits"\nevaluation = {{ n = {n} }}\n[[cell]]\nname = "a"\n')
        work = scoring_work(resolve_cell(read_grid(path).cells[0]))
        plan = plan_grid(path)
        [row] = plan.rows
        train_s, score_s = row.train_nimg / 200.0, work.evaluations / 1000.0
        assert row.hours == pytest.approx((train_s + score_s) / 3600)
        assert row.scoring_share == pytest.approx(score_s / (train_s + score_s))
        shares.append(row.scoring_share)
        assert any("scores take up to" in note for note in plan.notes) == (row.scoring_share > 0.2)
    assert shares[0] < 0.2 < shares[1]


@pytest.mark.parametrize("name", ["cifar10", "celeba64", "imagenet64"])
def test_every_published_cell_is_in_its_grid(name: str) -> None:
    table = EXPERIMENTS.parent / "ambient_theory/compare/shipped/published.jsonl"
    records = [json.loads(line) for line in table.read_text().splitlines()]
    published = [r for r in records if (r["dataset"], r["metric"], r["extra"]["grade"]) == (name, "fid", "primary")]
    planned = published_plan(name).rows
    assert len(published) == len(planned) == 4
    for record, row in zip(published, planned, strict=True):  # in the same order; 1.28 M there is 1,281,167 here
        assert (row.sigma_n or None) == record["sigma"]
        assert (row.n_clean, row.n_noisy) == pytest.approx((record["n_clean"], record["n_noisy"]), rel=1e-3)


def test_dry_run_adds_up_the_memory_of_the_micro_batch(tmp_path: Path, tiny_config: Path) -> None:
    plans = []
    for more in ([], ["--micro-batch", "4"]):
        arguments = ["train", "--config", str(tiny_config), "--device", "cpu", "--dry-run", "--json", *more]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        plans.append(json.loads(result.stdout))
    for plan in plans:
        parts = plan["state_mb"] + plan["activations_mb"] + plan["images_mb"]
        assert plan["memory_mb"] == pytest.approx(parts)
    assert [p["micro_batch"] for p in plans] == [16, 4]
    assert plans[1]["activations_mb"] == pytest.approx(plans[0]["activations_mb"] / 4, rel=0.1)
    for wrong in ("-4", "5"):
        arguments = ["train", "--config", str(tiny_config), "--device", "cpu", "--dry-run", "--micro-batch", wrong]
        assert CliRunner().invoke(app, arguments).exit_code == 2


def test_a_cell_without_its_data_says_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"data/cifar-10-python.tar.gz is not here .* put it there; .*cs.toronto.edu"):
        resolve_cell(read_grid(EXPERIMENTS / "cifar10.toml").cells[0])
    result = CliRunner().invoke(app, ["sweep", "run", str(EXPERIMENTS / "cifar10.toml"), "--json", "--quiet"])
    assert result.exit_code == 5
    assert "put it there" in json.loads(result.stdout)["failed"][0]["message"]


def test_stated_sizes_do_not_change_a_run_whose_data_is_here(tmp_path: Path) -> None:
    text = '[base]\ndata = "digits"\n{}[[cell]]\nname = "a"\n'
    (tmp_path / "a.toml").write_text(text.format(""))
    (tmp_path / "b.toml").write_text(text.format('n_images = 7\nimg_resolution = 64\ndata_from = "x"\n'))
    a, b = (resolve_cell(read_grid(tmp_path / f"{k}.toml").cells[0]) for k in "ab")
    assert a.config == b.config


def test_absent_data_without_a_stated_size_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text('[base]\ndata = "no/such.zip"\n[[cell]]\nname = "a"\n')
    with pytest.raises(DataError, match=r"no/such\.zip"):
        plan_grid(tmp_path / "g.toml")
    for wrong in ({"n_images": 0}, {"n_images": 10}, {"n_images": True, "img_resolution": 8}):
        with pytest.raises(UsageError, match="whole number"):
            stated_images("x", wrong)


def test_hours_count_a_consistency_loss_a_distillation_and_the_optimiser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(
        '[base]\ndata = "digits"\nduration = "10k"\nbatch = 64\n'
        'evaluation = { n = 40, denoise = 0, best = false, extractors = ["pixels"], metrics = ["fd"] }\n'
        '[[cell]]\nname = "plain"\ncorruption = 0.9\nsigma = 0.2\n'
        '[[cell]]\nname = "consistent"\ncorruption = 0.9\nsigma = 0.2\nconsistency = 1.0\nconsistency_batch = 64\n'
        '[[cell]]\nname = "distilled"\ndistill = "plain"\n'
        '[[cell]]\nname = "adam"\noptimizer = "adam"\ncorruption = 0.9\nsigma = 0.2\n'
    )
    timed: list[str] = []

    def measured(config: Any, *_: Any) -> timing.StepCost:
        timed.append(config.optimizer)
        return timing.StepCost(1, 1, 100.0, 1e9, 0, 0, 0)

    monkeypatch.setattr("ambient_train.sweep.plan.measure", measured)
    hours = {row.cell: row.hours for row in plan_grid(grid).rows}
    plain = hours["plain"]
    assert plain == pytest.approx(10_000 / 100 / 3600, rel=1e-3)
    assert hours["consistent"] == pytest.approx(plain * (1 + 4 * 3 / 3), rel=1e-3)
    assert hours["distilled"] == pytest.approx(plain * 11 / 3, rel=1e-3)
    assert timed == ["muon", "adam"]  # a distillation is optimised by Adam


def test_a_reference_time_is_of_the_same_network_and_resolution_only() -> None:
    config = resolve(settings_from(TINY)).config
    assert reference_time(config, 32) is None
    published = PRESETS["cifar10"].train
    same = dataclasses.replace(config, arch=published["arch"], network=dict(published["network"]))
    assert reference_time(same, 32) == REFERENCE_TIMES["cifar10"]
    assert reference_time(same, 64) is None
    assert reference_time(dataclasses.replace(same, network={**same.network, "model_channels": 64}), 32) is None


def test_reference_hours_count_an_evaluation_as_a_third_of_a_training_image() -> None:
    time = timing.ReferenceTime("X", 100.0, 1_000, "a test")
    assert time.hours(500, 0) == pytest.approx(50)
    assert time.hours(500, 1500) == pytest.approx(100)
