"""Settings over others: tables are merged key by key, everything else is replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import main_keys
from ambient_train.diffusion.sampler_settings import GeneralSamplerConfig
from ambient_train.settings.amounts import Amounts
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.edm_presets import EDM_ARCHITECTURES
from ambient_train.settings.evaluation import EvalConfig
from ambient_train.settings.presets import default_preset, get_preset
from ambient_train.settings.run_options import Schedule


def merged(below: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings `asked` over those `below`, where the tables `evaluation`, `evaluation.sampler` and `network` keep
    what is not asked; the network of another architecture is replaced.

    Raises UsageError where one of them is no table.
    """
    below, asked = by_main_keys(below), by_main_keys(asked)
    out = {**below, **asked}
    if _both("evaluation", below, asked):
        first, second = table(below, "evaluation"), table(asked, "evaluation")
        out["evaluation"] = {**first, **second}
        if _both("sampler", first, second):
            where = "evaluation."
            out["evaluation"]["sampler"] = {**table(first, "sampler", where), **table(second, "sampler", where)}
    if _both("network", below, asked) and _arch(below) == _arch(out):
        out["network"] = {**table(below, "network"), **table(asked, "network")}
    return out


def by_main_keys(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings under the keys of their options in place of the flags, also in `evaluation` and its sampler."""
    out = main_keys(settings, TrainConfig, Amounts, Schedule)
    if isinstance(out.get("evaluation"), Mapping):
        out["evaluation"] = scored = main_keys(out["evaluation"], EvalConfig)
        if isinstance(scored.get("sampler"), Mapping):
            scored["sampler"] = main_keys(scored["sampler"], GeneralSamplerConfig)
    return out


def table(values: Mapping[str, Any], key: str, where: str = "") -> dict[str, Any]:
    """A table in settings, empty where there is none. Raises UsageError for anything else; where: what it is in."""
    found = values.get(key, {})
    if not isinstance(found, Mapping):
        raise UsageError(f"{where}{key} must be a table of settings, not {found!r}")
    return dict(found)


def _both(key: str, *settings: Mapping[str, Any]) -> bool:
    return all(s.get(key) is not None for s in settings)


def _arch(settings: Mapping[str, Any]) -> str:
    """The class of the network: as named, else that of the preset."""
    preset = settings.get("preset") or default_preset(str(settings.get("data", "digits")))
    named = str(settings.get("arch") or get_preset(str(preset)).train["arch"])
    return EDM_ARCHITECTURES[named][0] if named in EDM_ARCHITECTURES else named
