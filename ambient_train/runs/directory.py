"""The run directory is the truth: manifest, metrics, checkpoints, samples, log, and the sealed result last.

    manifest.json -> metrics.jsonl (append-only) -> checkpoints/ -> samples/ -> log.txt -> result.json

Running the same training again continues from the newest checkpoint that holds, or finds the result and is done.
Another config on the same directory is refused, with the keys that differ.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import atomic_write_text, is_free, read_sealed, remove_leftovers, write_sealed
from ambient_theory.shared.kinds import COUNT, NUMBERS, OBJECT, TEXT, check_kinds, is_whole
from ambient_theory.shared.parsing import parse_json
from ambient_theory.shared.records import Record, library_versions
from ambient_train.runs.loggers import Logger
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.evaluation import EvalConfig

if TYPE_CHECKING:
    from ambient_train.runs.resolve import Job

MANIFEST_SCHEMAS = ("ambient.run/1", "ambient.run/2")
_MANIFEST = {**dict.fromkeys(("evaluation", "schedule", "asked"), OBJECT), "preset": TEXT}
_DATA = {
    **dict.fromkeys(("name", "hash", "path", "noise"), TEXT),
    **dict.fromkeys(("images", "channels", "resolution", "n_clean", "n_noisy", "label_dim"), COUNT),
    "levels": NUMBERS,
    "values": OBJECT,
}
RESULT_SCHEMA, SKIPPED_SCHEMA = "ambient.run-result/1", "ambient.skipped/1"


def default_directory(root: Path, job: Job) -> Path:
    """`root/<dataset>-s<level>-c<share>-seed<k>-<hash8>`; several levels are joined by `+`."""
    config = job.config
    share = config.n_noisy / (config.n_clean + config.n_noisy)
    levels = "+".join(f"{s:.4g}" for s in job.levels) or "0"
    return root / f"{job.dataset}-s{levels}-c{share:.4g}-seed{config.seed}-{config.hash}"


class RunDirectory:
    """Paths and files of one training. loggers: also hear of metrics, scores and rewinds."""

    def __init__(self, path: Path, loggers: Sequence[Logger] = ()):
        self.path = path
        self.loggers = loggers
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.metrics = path / "metrics.jsonl"
        self.manifest_file = path / "manifest.json"
        self.result_file = path / "result.json"
        self.skipped_file = path / "skipped.json"

    def manifest(self) -> dict[str, Any]:
        """What the run is. Raises DataError if there is none, or none that holds."""
        stored = read_sealed(self.manifest_file)
        if stored.get("schema") not in MANIFEST_SCHEMAS or not isinstance(stored.get("config"), dict):
            raise DataError(f"{self.manifest_file}: schema {stored.get('schema')!r} is not {MANIFEST_SCHEMAS[-1]!r}")
        try:
            check_kinds(stored, _MANIFEST)
            check_data(stored.get("data"))
        except DataError as error:
            raise DataError(f"{self.manifest_file}: {error}") from None
        return stored

    def config(self) -> TrainConfig:
        """The config of the run. Raises DataError as `manifest` does, and for one that this version cannot read."""
        try:
            return TrainConfig.from_dict(self.manifest()["config"])
        except UsageError as error:
            raise DataError(f"{self.manifest_file}: {error}") from None

    def precision(self) -> str:
        """That of the run; "" where there is none yet. Raises DataError as `manifest` does."""
        return str(self.manifest()["config"].get("precision", "fp32")) if self.manifest_file.exists() else ""

    def check(self, config: TrainConfig) -> None:
        """Raise UsageError, listing the keys that differ, unless this directory is free or holds this very training.

        Nothing is written.
        """
        if self.manifest_file.exists():
            if differences := config.differences(self.manifest()["config"]):
                raise UsageError(
                    f"{self.path} holds a run with another config ({'; '.join(differences)}): "
                    "use the same settings to continue it, or another --outdir"
                )
        elif not is_free(self.path):
            raise UsageError(f"{self.path} is not empty and holds no run: choose another --outdir")

    def claim(self, job: Job, details: Mapping[str, Any]) -> None:
        """Write the manifest, or check the one here and bring up to date where the data is, until when is trained, how
        it is scored, and which command does it in which folder.

        details: more to write down, by name. Raises as `check`.
        """
        self.check(job.config)
        remove_leftovers(self.path)
        about = {
            "config": job.config.to_dict(),
            "config_hash": job.config.hash,
            "preset": job.preset,
            "evaluation": job.evaluation.to_dict(),
            "schedule": job.schedule.to_dict(),
            "command": sys.argv,
            "folder": str(Path.cwd()),
            "data": job.describe_data(),
            **({} if job.teacher is None else {"distilled_from": job.teacher.describe()}),
        }
        if self.manifest_file.exists():
            stored = self.manifest()
            renewed = {**stored, **about, "schema": MANIFEST_SCHEMAS[-1]}
            if asked := details.get("asked"):
                renewed["asked"] = {**stored.get("asked", {}), **asked}
            if renewed != stored:
                write_sealed(self.manifest_file, renewed)
                if stored["config"].get("data") != job.config.data:
                    self.log(f"the data of {stored['config'].get('data')} is now read from {job.config.data}")
            return
        write_sealed(
            self.manifest_file,
            {
                "schema": MANIFEST_SCHEMAS[-1],
                **about,
                "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "versions": library_versions("torch", "numpy", "scipy", "scikit-learn", "safetensors", "pillow"),
                "hardware": {"machine": platform.machine(), "cpus": os.cpu_count(), "system": platform.system()},
                **details,
            },
        )

    def log(self, message: str) -> None:
        """Append a line with the time to log.txt."""
        stamp = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with open(self.path / "log.txt", "a", encoding="utf-8") as file:
            file.write(f"{stamp} {message}\n")

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(dict(line)) + "\n")
        for logger in self.loggers:
            logger.metrics(line)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of the metrics that can be read, oldest first; none where there is no such file."""
        try:
            lines = self.metrics.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        out = []
        for line in lines:
            with contextlib.suppress(ValueError):
                found = parse_json(line)
                if isinstance(found, dict) and is_whole(found.get("nimg")):
                    out.append(found)
        return out

    def rewind_metrics(self, nimg: int) -> int:
        """Drop lines beyond `nimg` images, and lines that cannot be read.

        Returns how many of these were not merely the last one, cut short; -1 where the file is gone.
        """
        for logger in self.loggers:
            logger.rewind(nimg)
        if not self.metrics.exists():
            return -1
        kept, damaged = [], []
        lines = self.metrics.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            try:
                at = parse_json(line)["nimg"]
                if not is_whole(at):
                    raise ValueError
                if at <= nimg:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                damaged.append(number)
        atomic_write_text(self.metrics, "".join(line + "\n" for line in kept))
        return sum(number != len(lines) for number in damaged)

    def skipped(self) -> tuple[int, ...]:
        """First sample indices of the batches that a rollback passed over. Raises DataError if the list is damaged."""
        if not self.skipped_file.exists():
            return ()
        stored = read_sealed(self.skipped_file)
        starts = stored.get("first_samples")
        if stored.get("schema") != SKIPPED_SCHEMA or not isinstance(starts, list) or not all(map(is_whole, starts)):
            raise DataError(f"{self.skipped_file}: not a list of skipped batches")
        return tuple(starts)

    def skip(self, starts: tuple[int, ...]) -> None:
        """Record all batches that are passed over, before training goes on without them."""
        write_sealed(self.skipped_file, {"schema": SKIPPED_SCHEMA, "first_samples": sorted(starts)})

    def result(self, config: TrainConfig | None = None) -> dict[str, Any] | None:
        """The sealed result, or None if it is missing, damaged or of another config."""
        try:
            stored = read_sealed(self.result_file)
        except DataError:
            return None
        if stored.get("schema") != RESULT_SCHEMA or not isinstance(stored.get("config"), dict):
            return None
        if (config and config.differences(stored["config"])) or not _are_points(stored.get("points")):
            return None
        return stored

    def scores(self, config: TrainConfig, evaluation: EvalConfig) -> dict[int, list[Record]]:
        """Scored points of this config and evaluation, by image count."""
        stored = self.result(config)
        if stored is None:
            return {}
        return {
            int(point["nimg"]): [Record.from_dict(r) for r in point["records"]]
            for point in stored["points"]
            if _same_evaluation(point["evaluation"], evaluation)
        }

    def scored_points(self, config: TrainConfig) -> tuple[int, ...]:
        """Image counts at which the run has been scored, in whatever way."""
        stored = self.result(config)
        return () if stored is None else tuple(sorted({int(point["nimg"]) for point in stored["points"]}))

    def add_scores(
        self, config: TrainConfig, evaluation: EvalConfig, nimg: int, records: list[Record], wall_s: float
    ) -> None:
        """Add one scored point to the sealed result; other points stay."""
        stored = self.result(config)
        wanted = evaluation.to_dict()
        points = [] if stored is None else stored["points"]
        points = [p for p in points if not (p["nimg"] == nimg and _same_evaluation(p["evaluation"], evaluation))]
        points.append({"nimg": nimg, "evaluation": wanted, "records": [r.to_dict() for r in records], "wall_s": wall_s})
        points.sort(key=lambda p: p["nimg"])
        write_sealed(
            self.result_file,
            {"schema": RESULT_SCHEMA, "config_hash": config.hash, "config": config.to_dict(), "points": points},
        )
        for logger in self.loggers:
            logger.scores(nimg, records)


def check_data(data: Any) -> None:
    """Raise DataError unless what a manifest or an export says of the data (`Job.describe_data`) can be used."""
    if data is not None:
        check_kinds({"data": data}, {"data": OBJECT})
        check_kinds(data, _DATA, "data.")


def _are_points(points: Any) -> bool:
    """Whether these are scored points, whose records can be read."""
    try:
        for point in points:
            check_kinds(point, {"nimg": COUNT, "evaluation": OBJECT})
            if point["nimg"] is None or point["evaluation"] is None:
                return False
            for record in point["records"]:
                Record.from_dict(record)
    except (DataError, TypeError, KeyError, AttributeError):
        return False
    return isinstance(points, list)


def _same_evaluation(stored: Mapping[str, Any], evaluation: EvalConfig) -> bool:
    """Whether a stored evaluation is this one."""
    try:
        return EvalConfig.from_stored(stored) == evaluation
    except UsageError:
        return False
