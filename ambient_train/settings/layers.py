"""From what is given in several places to one frozen `TrainSettings`: defaults < preset < file < flags.

The only mappings of settings are here; what leaves is typed and checked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.limits import read_text
from ambient_theory.shared.options import Checked, Given, by_key, describe, from_mapping, option
from ambient_theory.shared.parsing import parse_toml
from ambient_train.diffusion.sampler_settings import check_churn
from ambient_train.settings.amounts import Amounts
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.edm_presets import EDM_ARCHITECTURES
from ambient_train.settings.evaluation import EvalConfig
from ambient_train.settings.merging import by_main_keys, merged, table
from ambient_train.settings.presets import PRESETS, default_preset, get_preset
from ambient_train.settings.run_options import Schedule
from ambient_train.settings.second_stage import defaults, not_for_one_step, over_teacher

PAPER = {"weight": "y", "draw": "paper", "buffer": 1.0, "augment_labels": "edm"}
"""`--compat paper`: the loss and the draws of Daras et al. (2024) as their released code has them."""
PAPER_CONSISTENCY = {"consistency_form": "paper"}
"""And its consistency loss, where one is asked for."""


ONLY_WITH = {"weight_cap": ("weight", "optimal"), "loss_scale": ("precision", "fp16"), "muon_lr": ("optimizer", "muon")}
"""Settings that do nothing unless another one has this value."""


@dataclass(frozen=True, kw_only=True)
class Start(Checked):
    """Where settings start from."""

    preset: str | None = option(
        None,
        "Named settings",
        choices=lambda: sorted(PRESETS),
        shown_default="that of a built-in data set, else small",
        panel="Data and noise",
    )
    compat: str | None = option(
        None, "Loss and draws as in the paper's code", choices=("paper",), panel="Loss and draws"
    )


@dataclass(frozen=True, kw_only=True)
class NetworkFlags(Checked):
    """The two keywords of a network that every architecture has."""

    model_channels: int | None = option(
        None,
        "Channels of the first level",
        at_least=1,
        flag="--width",
        in_files=False,
        shown_default="by preset",
        panel="Network",
    )
    channel_mult: tuple[int, ...] | None = option(
        None,
        "Width of each level in units of --width: 1,2,2",
        form="integers",
        in_files=False,
        shown_default="by preset",
        panel="Network",
    )


_PARTS = (TrainConfig, Amounts, Schedule, Start)
"""Of flat settings."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What is asked of a training, checked as far as it can be without the data.

    train: without `data_hash`, `n_clean` and `n_noisy`, which `runs.resolve` finds. evaluation.extractors is empty
    where those that fit the images are meant.
    """

    train: TrainConfig
    amounts: Amounts
    schedule: Schedule
    evaluation: EvalConfig
    preset: str


def settings_from(given: Mapping[str, Any], *, distilled: bool = False) -> TrainSettings:
    """Flat settings by key (those of `TrainConfig`, `Amounts`, `Schedule` and `Start`), with tables `network` and
    `evaluation`, over their preset; with `distill` in them, over those of that run.

    distilled: the second stage of a run that is not known yet; `given` then has its settings.
    Raises UsageError for unknown keys, wrong types, broken rules and contradictions.
    """
    given = {k: v for k, v in by_main_keys(given).items() if v is not None}
    if run := given.get("distill"):
        given, distilled = over_teacher(Path(str(run)), given), True
    check_known(given)
    parts = {cls: _own(cls, given) for cls in _PARTS}
    train, start = parts[TrainConfig], from_mapping(Start, parts[Start])
    for found in ("n_clean", "n_noisy"):  # what is asked belongs to the amounts; the config has what `resolve` found
        train.pop(found, None)
    amounts = from_mapping(Amounts, parts[Amounts])
    data = train.get("data", "digits")
    preset_name = start.preset or default_preset(str(data))
    preset = get_preset(preset_name)
    below = {**preset.train, **(defaults(preset_name) if distilled else {})}
    config = from_mapping(TrainConfig, _over_preset(train, below, start.compat))
    amounts.check_noise(config.sigma_n)
    schedule = from_mapping(Schedule, {"duration_nimg": preset.duration_nimg, **parts[Schedule]})
    scored, sampler = table(given, "evaluation"), preset.sampler
    if distilled:
        not_for_one_step(scored)
        scored |= {"denoise": 0, "best": False}
        sampler = {"one_step_sigma": config.distill_sigma}
    below = {"evaluation": {"n": preset.n_eval, "extractors": [], "sampler": sampler}}
    evaluation = EvalConfig.from_dict(merged(below, {"evaluation": scored})["evaluation"])
    return TrainSettings(train=config, amounts=amounts, schedule=schedule, evaluation=evaluation, preset=preset_name)


def check_known(given: Mapping[str, Any], *also: type) -> None:
    """Raise UsageError for a key that no setting has, and no option of the classes `also`."""
    if unknown := sorted(set(given) - {key for cls in (*_PARTS, *also) for key in by_key(cls)} - {"evaluation"}):
        known = {d.key for cls in (*_PARTS, *also) for d in describe(cls) if d.option.in_files or cls in also}
        shown = ", ".join([*sorted(known), "evaluation"])
        raise UsageError(f"unknown setting(s) {', '.join(unknown)}: known are {shown}")


def flags_over_file(
    file: Path | None, *flags: Given[Any], network: Given[NetworkFlags], **tables: Any
) -> TrainSettings:
    """Flags over a config file; see `flags_over`. What is wrong with the file itself is said with its name."""
    if file is None:
        return flags_over({}, *flags, network=network, **tables)
    below = read_toml(file)
    with named(file, below):
        return flags_over(below, *flags, network=network, **tables)


@contextlib.contextmanager
def named(where: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """An error in the block begins with `where` if those settings alone, which are from there, make it too."""
    try:
        yield
    except (UsageError, DataError) as error:
        try:
            over_file(settings, {})
        except (UsageError, DataError) as own:
            if str(own) == str(error):
                raise type(error)(f"{where}: {error}") from None
        raise


def flags_over(
    below: Mapping[str, Any],
    *flags: Given[Any],
    network: Given[NetworkFlags],
    remembered: bool = False,
    **tables: Any,
) -> TrainSettings:
    """Flags over settings; see `over_file`.

    tables: `evaluation` and `sampler` as given on the command line.
    """
    asked: dict[str, Any] = {}
    for group in flags:
        asked |= group.values
    evaluation, sampler = tables.get("evaluation"), tables.get("sampler")
    steps = {"sampler": sampler.values} if sampler and sampler.values else {}
    if scored := {**(evaluation.values if evaluation else {}), **steps}:
        asked["evaluation"] = scored
    return over_file(below, with_network(asked, network.values), remembered=remembered)


def with_network(asked: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings with what `NetworkFlags` say in their table `network`. Raises UsageError where it is there, too."""
    own = table(asked, "network")
    if twice := sorted(set(own) & set(flags)):
        raise UsageError(f"{', '.join(twice)} is given twice, also in network: give one")
    return {**asked, **({"network": {**own, **_lists(flags)}} if flags else {})}


def over_file(below: Mapping[str, Any], asked: Mapping[str, Any], *, remembered: bool = False) -> TrainSettings:
    """Settings over those of a file; see `merged` and `settings_from`. Shares replace the file's counts, and the other
    way round.

    remembered: those below are what a run says of itself, which nobody gave. Raises UsageError also for settings that
    do nothing; in the file those do something that flags alone take the use of.
    """
    shares, counts = ("keep", "corruption"), ("n_clean", "n_noisy")
    for own, other in ((shares, counts), (counts, shares)):
        if any(key in asked for key in own):
            below = {key: value for key, value in below.items() if key not in other}
    made = settings_from(merged(below, asked))
    said = {k: v for k, v in below.items() if k not in ONLY_WITH or ONLY_WITH[k][0] not in asked}
    check_idle(asked if remembered else {**said, **asked}, made)
    return made


def check_idle(given: Mapping[str, Any], made: TrainSettings) -> None:
    """Raise UsageError where something was given that does nothing in the settings that it led to."""
    known, preset = by_key(TrainConfig), get_preset(made.preset).train
    for key, (other, needed) in ONLY_WITH.items():
        value = getattr(made.train, key)
        if key in given and getattr(made.train, other) != needed and value not in (known[key].default, preset.get(key)):
            raise UsageError(f"{key} without {other} {needed} does nothing: add --{other} {needed}, or leave it out")
    check_churn(table(table(given, "evaluation"), "sampler", "evaluation."), made.evaluation.sampler)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dictionary. Raises DataError (exit code 3) naming the file and line."""
    text = read_text(path)
    try:
        return parse_toml(text)
    except ValueError as error:
        raise DataError(f"{path}: not a readable TOML file ({error})") from None


def _own(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    known = by_key(cls)
    return {key: value for key, value in given.items() if key in known}


def _over_preset(given: dict[str, Any], preset: Mapping[str, Any], compat: str | None) -> dict[str, Any]:
    """Settings of a training over their preset: networks are merged where the architecture is the same."""
    below = dict(preset)
    if compat == "paper":
        paper = PAPER | (PAPER_CONSISTENCY if given.get("consistency") else {})
        below |= paper
        if clash := sorted(k for k in paper if k in given and given[k] != paper[k]):
            raise UsageError(f"compat 'paper' sets {', '.join(clash)}: leave these options out")
    if isinstance(given.get("arch"), str) and given["arch"] in EDM_ARCHITECTURES:
        below["arch"], below["network"] = EDM_ARCHITECTURES[given.pop("arch")]
    if "network" in given:
        own = table(given, "network")
        same_arch = given.get("arch", below.get("arch")) == below.get("arch")
        given["network"] = {**(below.get("network", {}) if same_arch else {}), **own}
    elif "arch" in given and given["arch"] != below.get("arch"):
        given["network"] = {}
    return below | given


def _lists(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
