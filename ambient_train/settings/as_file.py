"""Settings as the TOML file that gives them back: `settings_from(parse_toml(toml_of(s))) == s`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ambient_theory.shared.options import Described, describe
from ambient_theory.shared.toml_text import toml_key, toml_lines, toml_value
from ambient_train.diffusion.sampler_settings import OneStep
from ambient_train.settings.evaluation import EvalConfig
from ambient_train.settings.layers import TrainSettings
from ambient_train.settings.second_stage import ONLY_DENOISERS

_TABLES = ("network", "evaluation")
_FITTING = "extractors"


def table_of(settings: TrainSettings) -> dict[str, Any]:
    """The settings by key, as files have them, with tables `network` and `evaluation`; what is not set is left out."""
    flat = {"preset": settings.preset, **{d.key: value for d, value in _flat(settings) if value is not None}}
    evaluation: dict[str, Any] = {d.key: v for d, v in _scores(settings) if v is not None and not _by_images(d, v)}
    if not _one_step(settings):
        sampler = settings.evaluation.sampler
        own = {d.key: getattr(sampler, d.name) for d in describe(type(sampler))}
        evaluation["sampler"] = {k: v for k, v in own.items() if v is not None}
    return {**flat, "network": dict(settings.train.network), "evaluation": evaluation}


def toml_of(settings: TrainSettings) -> str:
    """A file of all settings, grouped as in the help; of those that are not set the default in words."""
    table = table_of(settings)
    parts = [f"preset = {toml_value(settings.preset)}\n"]
    panel = ""
    for d, value in sorted(_flat(settings), key=_place(settings)):
        if d.option.panel != panel:
            panel = d.option.panel
            parts.append(f"\n# {panel}\n")
        parts.append(_line(d, value))
    parts.append("\n[network]\n" + toml_lines(table["network"]))
    parts.append("\n[evaluation]\n" + "".join(_line(d, None if _by_images(d, v) else v) for d, v in _scores(settings)))
    if sampler := table["evaluation"].get("sampler"):
        parts.append("\n[evaluation.sampler]\n" + toml_lines(sampler))
    return "".join(parts)


def _line(d: Described, value: Any) -> str:
    return f"# {d.key}: {d.default_text}\n" if value is None else f"{toml_key(d.key)} = {toml_value(value)}\n"


def _flat(settings: TrainSettings) -> Iterator[tuple[Described, Any]]:
    """Every option of the training that files may hold, but for the tables, with its value; none of a part that is
    not asked for."""
    idle = [name for name in ("consistency", "distill") if not getattr(settings.train, name)]
    for part in (settings.amounts, settings.train, settings.schedule):
        for d in describe(type(part)):
            if d.option.in_files and d.key not in _TABLES and not any(d.key.startswith(f"{name}_") for name in idle):
                yield d, getattr(part, d.name)


def _scores(settings: TrainSettings) -> list[tuple[Described, Any]]:
    """The options of the scores with their values, without those that a one-step generator has not."""
    left_out = ONLY_DENOISERS if _one_step(settings) else ()
    return [(d, getattr(settings.evaluation, d.name)) for d in describe(EvalConfig) if d.key not in left_out]


def _by_images(d: Described, value: Any) -> bool:
    """Whether the value says that it is chosen by what fits the images."""
    return d.key == _FITTING and value == ()


def _one_step(settings: TrainSettings) -> bool:
    return isinstance(settings.evaluation.sampler, OneStep)


def _place(settings: TrainSettings) -> Any:
    """Sort key of `_flat`: panels in the order in which they first come."""
    panels: dict[str, int] = {}
    for d, _ in _flat(settings):
        panels.setdefault(d.option.panel, len(panels))
    return lambda entry: panels[entry[0].option.panel]
