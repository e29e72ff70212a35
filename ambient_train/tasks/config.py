"""What `ambient config show` does: the settings of a preset, a file or a run, with flags over them, as a file."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import finite
from ambient_theory.shared.options import Given, by_key
from ambient_train.data.builtin import BUILT_IN
from ambient_train.data.place import is_there
from ambient_train.runs.directory import RunDirectory
from ambient_train.runs.state import stored_evaluation, stored_schedule
from ambient_train.settings.as_file import table_of, toml_of
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.layers import NetworkFlags, Start, TrainSettings, flags_over, named, read_toml
from ambient_train.settings.presets import PRESETS
from ambient_train.settings.second_stage import ONLY_DENOISERS

SCHEMA = "ambient.config/1"


@dataclass(frozen=True)
class ShownConfig:
    """Settings, and sentences on what the source does not say."""

    settings: TrainSettings
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        settings: dict[str, Any] = finite(table_of(self.settings))
        return {"schema": SCHEMA, "settings": settings}

    def show(self) -> None:
        print(toml_of(self.settings), end="")


def show_config(
    source: str | None, start: Given[Start], *flags: Given[Any], network: Given[NetworkFlags], **tables: Any
) -> ShownConfig:
    """Settings of `source` with flags over them. source: a preset, a TOML file, a run directory, None for nothing.

    tables: `evaluation` and `sampler` as given on the command line. Raises UsageError, DataError.
    """
    below: Mapping[str, Any] = {}
    where = Path(source or "")
    notes: tuple[str, ...] = ()
    remembered = False
    if source in PRESETS:
        if "preset" in start.values:
            raise UsageError(f"{source} is a preset, and --preset names another: leave one out")
        below = {"preset": source, **({"data": source} if source in BUILT_IN.names else {})}
    elif source is not None and Path(source).is_dir():
        if start.values:
            raise UsageError("a run has all its settings: leave --preset and --compat out")
        below, notes = run_settings(Path(source))
        where, remembered = RunDirectory(Path(source)).manifest_file, True
    elif source is not None:
        if not Path(source).exists():
            raise DataError(
                f"{source}: give a TOML file, a run directory, or one of the presets {', '.join(sorted(PRESETS))}"
            )
        below = read_toml(Path(source))
    with named(where, below) if where.is_file() else contextlib.nullcontext():
        made = flags_over(below, start, *flags, network=network, remembered=remembered, **tables)
    return ShownConfig(made, notes)


def run_settings(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Flat settings that lead to the run in a directory, and what its manifest does not say.

    The data are named by the path that they were read from, where they are still there. Raises DataError where there is
    no run.
    """
    directory = RunDirectory(path)
    manifest = directory.manifest()
    config, checked = manifest["config"], directory.config()
    known = {d.key for d in by_key(TrainConfig).values() if d.option.in_files}
    asked = {k: v for k, v in config.items() if k in known and v is not None}
    place = (manifest.get("data") or {}).get("path")
    if place and is_there(place):
        asked["data"] = place
    evaluation = stored_evaluation(directory, manifest).to_dict()
    if config.get("teacher"):
        evaluation = {k: v for k, v in evaluation.items() if k not in ONLY_DENOISERS}
    schedule = stored_schedule(directory, manifest)
    notes: tuple[str, ...] = ()
    if schedule is None:
        notes = (f"{path} does not say for how long it trains: the duration is that of its preset",)
    return {
        "preset": manifest.get("preset", "small"),
        **asked,
        "n_clean": checked.n_clean,
        "n_noisy": checked.n_noisy,
        **({} if schedule is None else schedule.to_dict()),
        "evaluation": evaluation,
    }, notes
