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
from ambient_theory.own_data import options as own_data
from ambient_theory.own_data.options import DataOptions, FitConfig, FitFiles, ModelOptions, SureOptions
from ambient_theory.shared.options import Described, describe
from ambient_theory.shared.output import AsJson, Output
from ambient_theory.simulation import options as simulation
from ambient_theory.simulation.exchange import ExchangeConfig
from ambient_theory.simulation.grid import SimulationConfig
from ambient_theory.simulation.options import (
    AddedNoise,
    CalibrateOptions,
    ExchangeOptions,
    GridOptions,
    NoiseOfFile,
    Scope,
    SimulationFiles,
)
from ambient_train.data.estimation.options import NoiseOptions
from ambient_train.data.prepare.options import CorruptOptions, DecodeOptions, PrepareOptions
from ambient_train.data.prepare.prepare import PrepareConfig
from ambient_train.diffusion.sampler_settings import GeneralSamplerConfig, SamplerConfig
from ambient_train.settings.amounts import Amounts
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.document import SECTIONS, options_page
from ambient_train.settings.evaluation import EvalConfig, ScoreOptions
from ambient_train.settings.files import (
    ArchiveFiles,
    CurveFiles,
    EvaluateFiles,
    ExportOptions,
    GenerateFiles,
    NoiseFiles,
    PictureFiles,
    PlanFiles,
    RestoreFiles,
    RunsFolder,
    SweepFiles,
    TrainFiles,
    WorthFiles,
)
from ambient_train.settings.layers import NetworkFlags, Start
from ambient_train.settings.plan_options import GridStart, PlanOptions
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
        TrainFiles,
        Output,
    ),
    "generate": (GenerateOptions, GeneralSamplerConfig, GenerateFiles, Output),
    "evaluate": (Question, ScoreOptions, GeneralSamplerConfig, EvaluateFiles, Output),
    "restore": (RestoreOptions, LaunchOptions, AtCheckpoint, RestoreFiles, Output),
    "sweep init": (GridStart, Output),
    "sweep run": (PoolOptions, SlurmOptions, SweepFiles, Output),
    "sweep plan": (PlanOptions, PlanFiles, AsJson),
    "sweep status": (RunsFolder, AsJson),
    "worth": (WorthOptions, WorthFiles, Output),
    "runs": (RunsFolder, AsJson),
    "runs compare": (CurveFiles, Output),
    "presets": (AsJson,),
    "config show": (TrainConfig, Amounts, Start, NetworkFlags, Schedule, EvalConfig, SamplerConfig, Output),
    "compare": (Scores, PageOptions, Output),
    "price": (Scores, PriceOptions, Output),
    "budget": (Scores, Purse, Output),
    "data prepare": (PrepareOptions, DecodeOptions, ArchiveFiles, Output),
    "data corrupt": (CorruptOptions, ArchiveFiles, Output),
    "data check": (DecodeOptions, Output),
    "data noise": (NoiseOptions, NoiseFiles, Output),
    "data show": (PictureFiles, Output),
    "export": (ExportOptions, Output),
    "fit-gmm": (DataOptions, ModelOptions, SureOptions, FitFiles, Output),
    "simulate-gmm": (
        GridOptions,
        Scope,
        AddedNoise,
        NoiseOfFile,
        ExchangeOptions,
        CalibrateOptions,
        SimulationFiles,
        Output,
    ),
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

ANOTHER_NAME = {"evaluate": {"--n", "--seed"}, "data prepare": {"--color"}}
"""Flags that a command calls otherwise than the field does."""

CONFIGS = (
    *(cls for classes in COMMANDS.values() for cls in classes),
    PrepareConfig,
    SimulationConfig,
    ExchangeConfig,
    FitConfig,
)


def flags_of(command: str) -> set[str]:
    name, *rest = command.split()
    found = cli.imported(name)
    for word in rest:
        found = found.commands[word]
    return {flag for parameter in found.params for flag in parameter.opts}


def typed_by_hand(classes: tuple[type, ...], flags: set[str]) -> set[str]:
    """Flags that no class of options declares."""
    return {f for f in flags if f.startswith("--")} - {d.flag for cls in classes for d in describe(cls)}


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


@pytest.mark.parametrize("command", COMMANDS)
def test_no_flag_is_typed_by_hand(command: str) -> None:
    assert typed_by_hand(COMMANDS[command], flags_of(command)) == ANOTHER_NAME.get(command, set())


def test_a_flag_typed_by_hand_is_noticed() -> None:
    assert typed_by_hand(COMMANDS["price"], flags_of("price") | {"--loud"}) == {"--loud"}


def test_no_command_is_forgotten_here() -> None:
    every = set()
    for name in cli.COMMANDS:
        found = cli.imported(name)
        members = getattr(found, "commands", {})
        every |= {f"{name} {word}" for word in members}
        if not members or found.invoke_without_command:
            every.add(name)
    assert set(COMMANDS) == every


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
    sections = {"simulate-gmm": simulation.options_section(), "fit-gmm": own_data.options_section()}
    alone = {name: set(COMMANDS[name]) - {Output} for name in sections}
    asked = {cls for classes in COMMANDS.values() for cls in classes} - set().union(*alone.values())
    assert {cls for cls in asked if not any(issubclass(other, cls) for other in shown)} == set()
    assert shown <= asked
    for name, section in sections.items():
        assert all(d.flag in section for cls in alone[name] for d in describe(cls) if d.option.on_command_line)


def test_the_page_of_options_is_the_one_that_the_code_makes() -> None:
    assert (ROOT / "docs" / "options.md").read_text(
        encoding="utf-8"
    ) == options_page() + simulation.options_section() + own_data.options_section() + options_sections()
