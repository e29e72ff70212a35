"""`ambient config show`: the file that it prints leads back to the same settings, and to the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from invoke import ambient

from ambient_theory.shared.parsing import parse_toml
from ambient_train.runs.directory import RunDirectory
from ambient_train.runs.resolve import resolve
from ambient_train.settings.as_file import table_of, toml_of
from ambient_train.settings.layers import settings_from

ASKED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "shares": {"sigma": 0.2, "corruption": 0.9, "keep": 0.5},
    "counts": {"sigma": 0.2, "n_clean": 10, "n_noisy": 90, "holdout": 0.3, "max_images": 200},
    "paper": {"sigma": 0.2, "corruption": 0.5, "compat": "paper", "consistency": 0.5},
    "told": {"sigma": 0.2, "corruption": 0.5, "told_sigma": 0.0, "optimizer": "adam"},
    "preset": {"preset": "imagenet64"},
    "architecture": {"preset": "cifar10", "arch": "ncsnpp", "network": {"model_channels": 64}},
    "another architecture": {"preset": "cifar10", "arch": "SmallUNet", "network": {"model_channels": 8}},
    "no keywords": {"preset": "cifar10", "arch": "SmallUNet"},
    "schedule": {"duration": "1.5M", "score_at": "50k,100k"},
    "scores": {"evaluation": {"n": 50, "extractors": ["pixels"], "denoise": 0, "best": False}},
    "sampler": {"evaluation": {"sampler": {"churn": 40.0, "s_max": 50.0}}},
    "ablation": {"evaluation": {"sampler": {"discretization": "vp", "schedule": "vp"}}},
    "odd names": {"data": 'a "b"\\\x7f\u2028ü.npz:range=0..4095'},
}


@pytest.mark.parametrize("name", ASKED)
def test_the_file_of_settings_gives_the_same_settings(name: str) -> None:
    settings = settings_from(ASKED[name])
    assert settings_from(parse_toml(toml_of(settings))) == settings
    assert settings_from(table_of(settings)) == settings


def test_another_setting_would_be_noticed() -> None:
    text = toml_of(settings_from({"lr": 0.25}))
    assert "\nlr = 0.25\n" in text
    assert settings_from(parse_toml(text.replace("lr = 0.25", "lr = 0.5"))) != settings_from({"lr": 0.25})


def test_the_settings_of_a_distillation_give_the_same(trained: Path) -> None:
    settings = settings_from({"distill": str(trained), "batch": 8, "evaluation": {"n": 50}})
    assert settings_from(parse_toml(toml_of(settings))) == settings


def test_the_file_of_flags_names_the_same_training(tmp_path: Path) -> None:
    flags = ("--sigma", 0.2, "--corruption", 0.9, "--width", 16, "--steps", 5, "--seed", 3, "--duration", "20k")
    shown = ambient("config", "show", "digits", *flags)
    assert shown.exit_code == 0, shown.output
    (tmp_path / "run.toml").write_text(shown.stdout)
    asked = settings_from(
        {
            "sigma": 0.2,
            "corruption": 0.9,
            "network": {"model_channels": 16},
            "seed": 3,
            "duration": "20k",
            "evaluation": {"sampler": {"steps": 5}},
        }
    )
    again = ambient("config", "show", tmp_path / "run.toml")
    assert again.stdout == shown.stdout
    read = settings_from(parse_toml(shown.stdout))
    assert read == asked
    assert resolve(read).config.hash == resolve(asked).config.hash


def test_the_file_of_a_run_is_that_run(trained: Path, tmp_path: Path) -> None:
    shown = ambient("config", "show", trained)
    assert shown.exit_code == 0, shown.output
    (tmp_path / "run.toml").write_text(shown.stdout)
    config = RunDirectory(trained).manifest()["config_hash"]
    assert resolve(settings_from(parse_toml(shown.stdout))).config.hash == config
    done = ambient("train", "--config", tmp_path / "run.toml", "--outdir", trained, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "already done" in done.stderr  # scored in the same way, too
    longer = ambient("config", "show", trained, "--duration", "1k", "--json", "-q")
    assert json.loads(longer.stdout)["settings"]["duration_nimg"] == 1000


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nothing.toml"], 3, "give a TOML file, a run directory, or one of the presets"),
        (["digits", "--preset", "small"], 2, "leave one out"),
        (["RUN", "--preset", "small"], 2, "a run has all its settings"),
        (["EMPTY"], 3, "manifest.json: no such file"),
        (["--sigma", "0.2"], 2, "add --corruption SHARE"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(
    trained: Path, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    places = {"RUN": str(trained), "EMPTY": str(tmp_path)}
    result = ambient("config", "show", *(places.get(a, a) for a in arguments))
    assert result.exit_code == code
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
