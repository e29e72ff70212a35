"""How far a run is, told from its directory alone: no training code is loaded, and nothing is written.

A run is `done` where every point that was asked for is scored as asked (what `sweep status` asks of a cell, too),
`running` while another process holds its lock, `trained` where only scores are missing, else `started`. `damaged` is a
directory whose manifest does not hold.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeGuard

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import is_locked, read_json
from ambient_theory.shared.options import from_mapping
from ambient_theory.shared.records import NATS, Record
from ambient_train.runs.asked import is_scored, stored_scores
from ambient_train.runs.directory import RunDirectory
from ambient_train.settings.evaluation import EvalConfig
from ambient_train.settings.presets import get_preset
from ambient_train.settings.run_options import Schedule
from ambient_train.training.checkpoint_names import available

STATES = ("done", "running", "trained", "started", "damaged")
_DEEPEST = 4
_PROGRAM = ("ambient", "cli.py")


@dataclass(frozen=True)
class RunState:
    """state: one of `STATES`. trained_nimg: images after which it continues, or has come to while it runs.
    duration_nimg: until when, None where an older manifest does not say. records: of the newest scored point.
    command: what continues it, empty where it is done or at work. message: what is wrong with a damaged one.
    """

    path: Path
    state: str
    trained_nimg: int = 0
    duration_nimg: int | None = None
    records: tuple[Record, ...] = ()
    command: str = ""
    message: str = ""

    @property
    def headline(self) -> Record | None:
        """The distance by which the run is known: of its last weights, the first metric in the last features,
        against held-out images where there are any."""
        distances = [r for r in _of_last(self.records) if r.level is None and r.metric != NATS]
        heldout = [r for r in distances if r.reference.startswith("heldout")] or distances
        return next((r for r in reversed(heldout) if r.metric == heldout[0].metric), None)

    @property
    def nats(self) -> Record | None:
        """The total held-out denoising error of the last weights."""
        return next((r for r in _of_last(self.records) if r.metric == NATS), None)


def find_runs(folder: Path) -> Iterator[Path]:
    """Run directories: the folder itself, or those below it, four levels deep, in the order of their names."""
    yield from _below(folder, _DEEPEST)


def _below(folder: Path, depth: int) -> Iterator[Path]:
    if _is_run(folder):
        yield folder
    elif depth:
        for entry in sorted(folder.iterdir()):
            if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
                yield from _below(entry, depth - 1)


def _is_run(folder: Path) -> bool:
    """Whether a directory holds a run, if only a damaged one (simulations and checkpoints have manifests, too)."""
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return False
    try:
        stored = read_json(manifest)
    except DataError:
        return (folder / "checkpoints").is_dir()
    return isinstance(stored, dict) and str(stored.get("schema", "")).startswith("ambient.run/")


def state_of(path: Path) -> RunState:
    """The state of the run in a directory. Raises DataError where there is no run."""
    directory = RunDirectory(path)
    if not _is_run(path):
        raise DataError(f"{path}: no run of ambient train: give a run directory")
    points = [int(p.name) for p in available(directory.checkpoints)]
    reached = max(points, default=0)
    try:
        manifest = directory.manifest()
        config = directory.config()
        evaluation = stored_evaluation(directory, manifest)
        schedule = stored_schedule(directory, manifest)
        scored = stored_scores(path, evaluation)
    except DataError as error:
        return RunState(path, "damaged", reached, message=str(error))
    newest = tuple(scored[max(scored)]) if scored else ()
    if is_locked(path / "lock"):
        reached = max([reached, *(line["nimg"] for line in directory.read_metrics()[-1:])])
        return RunState(path, "running", reached, _duration(schedule), newest)
    whole_steps = 0 if schedule is None else -(-schedule.duration_nimg // config.batch) * config.batch
    if schedule is None:  # of a version whose manifests do not say until when
        done = bool(scored) and reached < max(scored) + config.batch
    else:
        done = is_scored(path, evaluation, schedule)
    if done:
        return RunState(path, "done", reached, _duration(schedule), newest)
    state = "trained" if schedule is not None and reached >= whole_steps else "started"
    return RunState(path, state, reached, _duration(schedule), newest, continuing_command(path, manifest))


def stored_evaluation(directory: RunDirectory, manifest: Mapping[str, Any]) -> EvalConfig:
    """How a run is scored: as its manifest says, for older runs as it was last scored, else by its preset.

    Raises DataError for what cannot be read.
    """
    file = directory.manifest_file
    try:
        if "evaluation" in manifest:
            return EvalConfig.from_dict(manifest["evaluation"] or {})
        result = directory.result()
        if result is not None and result["points"]:
            file = directory.result_file
            return EvalConfig.from_dict(result["points"][-1]["evaluation"])
        preset = get_preset(manifest.get("preset", "small"))
    except UsageError as error:
        raise DataError(f"{file}: {error}") from None
    return EvalConfig.from_dict({"n": preset.n_eval, "sampler": dict(preset.sampler)})


def stored_schedule(directory: RunDirectory, manifest: Mapping[str, Any]) -> Schedule | None:
    """Until when a run trains; None in a manifest of a version that does not say. Raises DataError."""
    stored = manifest.get("schedule")
    try:
        return from_mapping(Schedule, stored) if stored is not None else None
    except UsageError as error:
        raise DataError(f"{directory.manifest_file}: {error}") from None


def continuing_command(path: Path, manifest: Mapping[str, Any], here: Path | None = None) -> str:
    """The command that continues a run: the one that worked on it last, in its folder, but scoring what it trains.

    A run that no command made (a script, a notebook) is continued by its own settings.
    """
    words = manifest.get("command")
    if not _is_command(words):
        name = shlex.quote(str(path))
        return f"ambient config show {name} > run.toml && ambient train --config run.toml --outdir {name}"
    command = shlex.join(["ambient", *(w for w in words[1:] if w != "--no-score")])
    folder = manifest.get("folder")
    moved = isinstance(folder, str) and Path(folder) != (here or Path.cwd())
    return f"cd {shlex.quote(str(folder))} && {command}" if moved else command


def _is_command(words: Any) -> TypeGuard[list[str]]:
    """Whether the words are a call of `ambient` that trains."""
    if not isinstance(words, list) or len(words) < 2 or not all(isinstance(w, str) for w in words):
        return False
    return PurePath(words[0]).name in _PROGRAM and words[1] in ("train", "sweep", "worth")


def _duration(schedule: Schedule | None) -> int | None:
    return None if schedule is None else schedule.duration_nimg


def _of_last(records: Sequence[Record]) -> list[Record]:
    return [r for r in records if r.checkpoint in (None, "last")]
