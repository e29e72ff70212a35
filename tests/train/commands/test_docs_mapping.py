"""docs/from-ambient-laws.md maps every option of the reference, and only to options that exist."""

from __future__ import annotations

import functools
import re
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ambient_train.diffusion.ablation_sampler import DISCRETIZATIONS, SCALINGS, SCHEDULES
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.presets import PRESETS
from cli import app

TEXT = (Path(__file__).parents[3] / "docs" / "from-ambient-laws.md").read_text(encoding="utf-8")

TRAIN = """
outdir data cond arch precond duration batch batch-gpu cbase cres lr weight_decay ema dropout augment xflip fp16 ls
bench cache workers expr_id desc nosubdir tick snap dump seed transfer resume dry-run corruption_probability sigma
dataset_keep_percentage consistency_* num_* with_*
"""
GENERATE = """
network outdir seeds subdirs class batch steps sigma_min sigma_max rho S_churn S_min S_max S_noise solver disc schedule
scaling
"""
DATASET_TOOL = ["source", "dest", "max-images", "transform", "resolution"]
SCORES = ["calc --images", "calc --ref", "calc --num", "calc --seed", "calc --batch", "ref --data", "ref --dest"]


def section(title: str) -> list[list[str]]:
    """The rows of the table below a heading, header left out."""
    body = TEXT.split(f"\n## {title}", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines() if line[:1] == "|"]
    return rows[2:]


@functools.cache
def help_of(*command: str) -> str:
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb"})
    assert result.exit_code == 0, command
    return result.output


@pytest.mark.parametrize(
    ("title", "options"),
    [
        ("Training", [f"--{o}" for o in TRAIN.split()]),
        ("Generation", [f"--{o}" for o in GENERATE.split()]),
        ("Data", [f"--{o}" for o in DATASET_TOOL]),
        ("Scores", SCORES),
    ],
)
def test_every_option_of_the_reference_has_its_row(title: str, options: list[str]) -> None:
    found = [row[0].strip("`") for row in section(title)]
    assert [o for o in options if o not in found] == []
    assert len(found) == len(set(found))


@pytest.mark.parametrize("title", ["Training", "Generation", "Data", "Scores"])
def test_every_row_names_an_option_or_says_why_there_is_none(title: str) -> None:
    for option, ours, note in section(title):
        if ours == "none":
            assert len(note.split()) >= 5, option
        else:
            assert re.match(r"`(ambient [a-z]+|config: [a-z_]+)", ours), (option, ours)


def test_every_command_and_flag_that_is_named_exists() -> None:
    tokens = re.findall(r"`(ambient [^`]*)`", TEXT)
    assert len(tokens) > 50
    for token in tokens:
        words = token.split()[1:]
        depth = 2 if words[0] in ("data", "sweep") else 1
        shown = help_of(*words[:depth])
        for flag in (w for w in words[depth:] if w.startswith("-")):
            assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", shown), token


def test_every_config_key_and_preset_that_is_named_exists() -> None:
    known = {field.name for field in fields(TrainConfig)}
    keys = set(re.findall(r"`config: ([a-z_]+)`", TEXT))
    assert keys <= known
    assert {"dropout", "augment", "network"} <= keys
    assert set(re.findall(r"`(cifar10|celeba64|imagenet64)`", TEXT)) <= set(PRESETS)
    for name in (*DISCRETIZATIONS, *SCHEDULES, *SCALINGS):
        assert f"`{name}`" in TEXT


def test_a_flag_that_does_not_exist_would_be_noticed() -> None:
    assert "--corruption_probability" not in help_of("train")
    assert "--corruption" in help_of("train")
