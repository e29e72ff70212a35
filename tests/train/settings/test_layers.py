"""defaults < preset < file < flags, and half a setting is never dropped."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import Given
from ambient_theory.shared.toml_text import toml_lines
from ambient_train.diffusion.sampler_settings import SamplerConfig
from ambient_train.runs.resolve import resolve
from ambient_train.settings.amounts import Amounts
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.evaluation import EvalConfig
from ambient_train.settings.layers import NetworkFlags, flags_over_file, over_file, settings_from
from ambient_train.settings.requests import GenerateOptions
from ambient_train.settings.run_options import LaunchOptions, RunOptions
from ambient_train.settings.second_stage import inherited
from ambient_train.sweep.grid import read_grid
from ambient_train.tasks.train import announce

ROOT = Path(__file__).parents[3]
NO_NETWORK: Given[NetworkFlags] = Given(NetworkFlags, {})


def test_later_layers_win(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("lr = 0.5\nbatch = 64\nn_clean = 3\n[evaluation]\nn = 50\nsampler = { steps = 3 }\n")
    made = flags_over_file(file, Given(TrainConfig, {"lr": 0.25}), Given(Amounts, {"keep": 0.5}), network=NO_NETWORK)
    assert (made.train.lr, made.train.batch, made.train.ema_halflife_nimg) == (0.25, 64, 100_000)
    assert made.amounts == Amounts(keep=0.5)  # shares as flags replace counts of the file
    assert (made.evaluation.n, made.evaluation.sampler.steps, made.evaluation.sampler.sigma_max) == (50, 3, 20.0)


def test_flags_of_the_network_add_to_its_table(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("network = { emb_channels = 8 }\n")
    made = flags_over_file(file, network=Given(NetworkFlags, {"model_channels": 4}))
    assert made.train.network == {"model_channels": 4, "channel_mult": [1, 2], "emb_channels": 8}


def test_tables_are_merged_key_by_key_in_python_as_on_the_command_line(tmp_path: Path) -> None:
    below = {
        "network": {"model_channels": 16},
        "evaluation": {"n": 1000, "sampler": {"steps": 3, "stop_sigma": 0.2}},
    }
    made = over_file(
        below, {"network": {"channel_mult": [1, 1]}, "evaluation": {"denoise": 50, "sampler": {"steps": 4}}}
    )
    assert made.train.network == {"model_channels": 16, "channel_mult": [1, 1]}
    assert (made.evaluation.n, made.evaluation.denoise) == (1000, 50)
    assert (made.evaluation.sampler.steps, made.evaluation.sampler.to_dict()["stop_sigma"]) == (4, 0.2)
    file = tmp_path / "run.toml"
    file.write_text(toml_lines(below))
    flags = flags_over_file(
        file,
        network=Given(NetworkFlags, {"channel_mult": (1, 1)}),
        evaluation=Given(EvalConfig, {"denoise": 50}),
        sampler=Given(SamplerConfig, {"steps": 4}),
    )
    assert flags == made


def test_the_network_of_another_architecture_is_no_layer_of_this_one() -> None:
    below = {"network": {"model_channels": 16, "emb_channels": 8}}
    assert over_file(below, {"arch": "SmallUNet", "network": {"num_blocks": 1}}).train.network["emb_channels"] == 8
    other = over_file(below, {"arch": "ddpmpp", "network": {"channel_mult": [1]}}).train
    assert other.network == settings_from({"arch": "ddpmpp", "network": {"channel_mult": [1]}}).train.network


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sigma": 0.2}, "add --corruption SHARE or --n-noisy COUNT"),
        ({"sigma": 0.2, "corruption": 0.0}, "adds noise to no image"),
        ({"sigma": 0.2, "n_clean": 5}, "adds noise to no image"),
        ({"keep": 0.5, "n_clean": 3}, "exclude each other"),
        ({"n_clean": 0, "n_noisy": 0}, "both 0"),
        ({"learning_rate": 1}, "unknown setting.*learning_rate"),
        ({"data_hash": 5}, "data_hash must be of type str"),
        ({"compat": "paper", "weight": "x0"}, "compat 'paper' sets weight"),
        ({"network": 3}, "network must be a table"),
        ({"evaluation": 3}, "evaluation must be a table"),
        ({"evaluation": {"n": 3}}, "evaluation.n 3"),
        ({"evaluation": {"sampler": {"steps": 0}}}, "evaluation.sampler.steps 0"),
        ({"duration": 5, "duration_nimg": 6}, "given twice"),
        ({"duration_nimg": 100, "score_at": [200]}, "score_at"),
    ],
)
def test_contradictions_are_refused_before_any_data_is_read(given: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        settings_from(given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"weight_cap": 3.0}, "weight_cap without weight optimal does nothing: add --weight optimal"),
        ({"loss_scale": 4.0, "precision": "auto"}, "loss_scale without precision fp16"),
        ({"muon_lr": 0.5, "optimizer": "adam"}, "muon_lr without optimizer muon"),
        ({"evaluation": {"sampler": {"s_noise": 1.01, "s_max": 50.0}}}, "s_max, s_noise without churn: add --churn"),
    ],
)
def test_what_does_nothing_is_refused_where_it_is_given(given: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        over_file({}, given)
    over_file(given, {}, remembered=True)
    file = tmp_path / "run.toml"
    file.write_text(toml_lines(given))
    with pytest.raises(UsageError, match=f"^{re.escape(str(file))}: .*{words}"):
        flags_over_file(file, network=NO_NETWORK)
    grid = tmp_path / "grid.toml"
    grid.write_text(f'[base]\n{toml_lines(given)}\n[[cell]]\nname = "a"\n')
    assert read_grid(grid).order == ("a",)  # of other cells, for all that is known
    grid.write_text(f'[[cell]]\nname = "a"\n{toml_lines(given)}')
    with pytest.raises(UsageError, match=f"cell 'a': {words}"):
        read_grid(grid)


def test_what_has_its_use_or_its_default_is_no_idle_setting(tmp_path: Path) -> None:
    over_file({"optimizer": "muon", "muon_lr": 0.5}, {"optimizer": "adam"})  # the file is of use without the flag
    over_file({}, {"preset": "imagenet64", "loss_scale": 100.0})
    over_file({}, {"optimizer": "adam", "muon_lr": 2e-2, "weight_cap": 10.0, "loss_scale": 1.0})
    over_file({}, {"weight": "optimal", "weight_cap": 3.0, "evaluation": {"sampler": {"churn": 4.0, "s_max": 50.0}}})
    over_file({"evaluation": {"sampler": {"churn": 4.0, "s_max": 50.0}}}, {"evaluation": {"sampler": {"churn": 0.0}}})


@pytest.mark.parametrize(
    ("options", "given", "words"),
    [
        (RunOptions, {"max_rollbacks": 3}, "--max-rollbacks without --on-nan rollback"),
        (LaunchOptions, {"rendezvous": "node0:29500"}, "--rendezvous is for several machines: add --nodes"),
        (LaunchOptions, {"rendezvous_timeout_s": 60.0, "nproc": 2}, "--rendezvous-timeout is for several machines"),
        (LaunchOptions, {"max_restarts": 3}, "--max-restarts starts processes again: add --nproc"),
        (GenerateOptions, {"subdirs": True, "form": "npz"}, "--subdirs is for one file an image, and --format npz"),
    ],
)
def test_options_of_a_run_that_do_nothing_are_refused(options: Any, given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        options(**given)


@pytest.mark.parametrize(
    ("asked", "came", "expected"),
    [
        (Amounts(), 0, (100, 0)),
        (Amounts(), 30, (70, 30)),
        (Amounts(keep=0.5), 0, (50, 0)),
        (Amounts(keep=0.5), 30, (35, 15)),
        (Amounts(keep=0.5), 100, (0, 50)),
        (Amounts(keep=0.99), 99, (1, 98)),
        (Amounts(keep=0.5, corruption=0.0), 30, (50, 0)),
        (Amounts(corruption=0.9), 0, (10, 90)),
        (Amounts(corruption=0.3), 30, (70, 30)),
        (Amounts(n_clean=5, n_noisy=7), 0, (5, 7)),
        (Amounts(n_clean=5), 0, (5, 0)),
    ],
)
def test_amounts_become_counts(asked: Amounts, came: int, expected: tuple[int, int]) -> None:
    assert asked.of(100, came, 0.2) == expected


def test_noise_that_no_level_is_given_for_is_refused() -> None:
    with pytest.raises(UsageError, match="90 noisy images are asked for: add --sigma LEVEL"):
        Amounts(corruption=0.9).of(100, 0, 0.0)
    with pytest.raises(UsageError, match="and 30 came noisy: add --sigma LEVEL"):
        Amounts(corruption=0.9).of(100, 30, 0.0)
    with pytest.raises(UsageError, match="the data set has 100, 30 of them noisy already"):
        Amounts(n_clean=80).of(100, 30, 0.0)


def test_settings_are_read_without_torch_or_numpy() -> None:
    code = (
        "import sys\n"
        "from ambient_train.settings.layers import settings_from\n"
        "from ambient_train.sweep.status import status_grid\n"
        "settings_from({'sigma': 0.2, 'corruption': 0.9, 'weight': 'optimal'})\n"
        "heavy = {'torch', 'numpy', 'scipy', 'sklearn', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_setting_that_is_added_later_keeps_the_names_of_earlier_runs() -> None:
    config = TrainConfig(sigma_n=0.2, n_clean=3, n_noisy=4)
    assert config.hash == TrainConfig.from_dict({**config.to_dict(), "data": "elsewhere/digits"}).hash
    assert config.hash != TrainConfig(sigma_n=0.3, n_clean=3, n_noisy=4).hash
    assert config.differences({**config.to_dict(), "data": "elsewhere"}) == []
    stored = {k: v for k, v in config.to_dict().items() if k != "weight_cap"}  # of a version without that setting
    assert config.differences(stored) == []
    assert config.differences({**stored, "sigma": 0.5}) == ["sigma: 0.5 -> 0.2"]


def test_the_second_stage_of_a_ramp_learns_from_all_images_at_once() -> None:
    assert inherited({"draw": "clean-first", "draw_epochs": 40.0})["draw_epochs"] == 0
    assert inherited({})["draw_epochs"] == 0  # of the default draw
    assert "draw_epochs" not in inherited({"draw": "sigma-first"})
    assert "draw_epochs" not in inherited({"compat": "paper"})
    with pytest.raises(UsageError, match="draw 'sigma-first' has no epochs in which noisy images come in"):
        settings_from({"preset": "digits", "keep": 0.5, "draw": "sigma-first", "draw_epochs": 40.0})
    made = settings_from({"preset": "digits", "keep": 0.5, "draw": "clean-first", "draw_epochs": 40.0}).train
    assert made.identity()["draw_epochs"] == 40.0
    assert "draw_epochs" not in settings_from({"preset": "digits", "keep": 0.5}).train.identity()


def test_a_training_that_ends_before_noisy_images_have_come_in_says_so() -> None:
    asked = {"preset": "digits", "sigma": 0.2, "corruption": 0.5}
    short, long, start = (
        " ".join(announce(resolve(settings_from({**asked, **more}))))
        for more in ({"duration_nimg": 7210}, {"duration_nimg": 80_000}, {"duration_nimg": 7210, "draw": "sigma-first"})
    )
    assert "noisy images come in over 72,100 images (100 epochs of the clean ones), and these are 7,210" in short
    assert "10 % of their share" in short
    assert "come in" not in long + start
