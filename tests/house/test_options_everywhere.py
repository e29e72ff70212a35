"""Every setting is an option, every option a flag of its command and a row of the docs, or it says why not."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import cli
from ambient_theory.compare.commands.document import SECTIONS as COMPARE_SECTIONS
from ambient_theory.compare.commands.document import options_sections
from ambient_theory.compare.commands.settings import PageOptions, PriceOptions, Purse, Scores
from ambient_theory.shared.options import Described, describe
from ambient_theory.simulation.exchange import ExchangeConfig
from ambient_theory.simulation.grid import SimulationConfig
from ambient_theory.simulation.options import AddedNoise, ExchangeOptions, GridOptions, Scope, options_section
from ambient_train.data.prepare.options import CorruptOptions, DecodeOptions, PrepareOptions
from ambient_train.data.prepare.prepare import PrepareConfig
from ambient_train.diffusion.sampler_settings import GeneralSamplerConfig, SamplerConfig
from ambient_train.settings.amounts import Amounts
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.document import SECTIONS, options_page
from ambient_train.settings.evaluation import EvalConfig
from ambient_train.settings.layers import NetworkFlags, Start
from ambient_train.settings.plan_options import PlanOptions
from ambient_train.settings.requests import AtCheckpoint, GenerateOptions, Question
from ambient_train.settings.restore import RestoreOptions
from ambient_train.settings.run_options import LaunchOptions, PoolOptions, RunOptions, Schedule, SlurmOptions
from ambient_train.settings.worth import WorthOptions

ROOT = Path(__file__).parents[2]

COMMANDS: dict[str, tuple[type, ...]] = {
    "train": (
        TrainConfig,
        Amounts,
        Start,
        NetworkFlags,
        Schedule,
        EvalConfig,
        SamplerConfig,
        RunOptions,
        LaunchOptions,
    ),
    "generate": (GenerateOptions, GeneralSamplerConfig),
    "evaluate": (Question, EvalConfig, GeneralSamplerConfig),
    "restore": (RestoreOptions, LaunchOptions, AtCheckpoint),
    "sweep run": (PoolOptions, SlurmOptions),
    "sweep plan": (PlanOptions,),
    "worth": (WorthOptions,),
    "compare": (Scores, PageOptions),
    "price": (Scores, PriceOptions),
    "budget": (Scores, Purse),
    "data prepare": (PrepareOptions, DecodeOptions),
    "data corrupt": (CorruptOptions,),
    "data check": (DecodeOptions,),
    "simulate-gmm": (GridOptions, Scope, AddedNoise, ExchangeOptions),
}

SETTLED_ELSEWHERE = {
    (EvalConfig, "sampler"): "a class of options of its own",
    (PrepareConfig, "source"): "an argument",
    (PrepareConfig, "dest"): "an argument",
    (ExchangeConfig, "k"): "the one --k of the grid",
    (ExchangeConfig, "estimator"): "that of the grid",
    (ExchangeConfig, "weights"): "that of the grid",
}
"""Fields of a config that are no option, and where they come from."""

CONFIGS = (
    *(cls for classes in COMMANDS.values() for cls in classes),
    PrepareConfig,
    SimulationConfig,
    ExchangeConfig,
)


def flags_of(command: str) -> set[str]:
    name, *rest = command.split()
    found = cli.imported(name)
    for word in rest:
        found = found.commands[word]
    return {flag for parameter in found.params for flag in parameter.opts}


def missing(classes: tuple[type, ...], flags: set[str]) -> list[str]:
    """Options without a flag among `flags` that give no reason for it."""

    def excused(d: Described) -> bool:
        return not d.option.on_command_line and bool(re.search(r"flag|found, not asked|found from", d.option.doc))

    return [
        f"{cls.__name__}.{d.name}" for cls in classes for d in describe(cls) if not excused(d) and d.flag not in flags
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_a_flag_of_its_command_or_says_why_not(command: str) -> None:
    assert missing(COMMANDS[command], flags_of(command)) == []


def test_the_list_of_commands_says_of_each_what_its_own_help_begins_with() -> None:
    for name, entry in cli.COMMANDS.items():
        assert " ".join(cli.imported(name).help.split("\n\n")[0].split()) == entry.summary, name


def test_a_setting_without_a_flag_is_noticed() -> None:
    assert missing((TrainConfig,), flags_of("train") - {"--weight-cap"}) == ["TrainConfig.weight_cap"]


@pytest.mark.parametrize("cls", dict.fromkeys(CONFIGS), ids=lambda cls: cls.__name__)
def test_every_field_of_a_config_is_an_option_or_comes_from_a_named_place(cls: type) -> None:
    options = {d.name for d in describe(cls)}
    fields = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    assert fields - options == {name for owner, name in SETTLED_ELSEWHERE if owner is cls}


def test_every_class_of_options_is_in_the_docs() -> None:
    shown = {cls for _, _, classes in SECTIONS for cls in classes}
    shown |= {cls for _, _, classes in COMPARE_SECTIONS for cls in classes}
    simulated = set(COMMANDS["simulate-gmm"])
    assert {cls for classes in COMMANDS.values() for cls in classes} - simulated == shown
    assert all(d.flag in options_section() for cls in simulated for d in describe(cls) if d.option.on_command_line)


def test_the_page_of_options_is_the_one_that_the_code_makes() -> None:
    assert (ROOT / "docs" / "options.md").read_text(
        encoding="utf-8"
    ) == options_page() + options_section() + options_sections()
