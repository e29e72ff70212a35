"""The run directory is the truth: manifest, metrics, checkpoints, samples, log, and the sealed result last.

    manifest.json -> metrics.jsonl (append-only) -> checkpoints/ -> samples/ -> log.txt -> result.json

Running the same training again continues from the newest checkpoint that holds, or finds the result and is done.
Another config on the same directory is refused, with the keys that differ.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import atomic_write_text, read_sealed, write_sealed
from ambient_theory.shared.records import Record, library_versions
from ambient_train.settings.config import TrainConfig
from ambient_train.runs.loggers import Logger
from ambient_train.settings.evaluation import EvalConfig

MANIFEST_SCHEMA, RESULT_SCHEMA, SKIPPED_SCHEMA = "ambient.run/1", "ambient.run-result/1", "ambient.skipped/1"
ON_NAN = ("stop", "rollback")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What does not change the weights. duration_nimg: train until then. score_at: image counts at which the run is
    scored, the last one being the duration. device: see `choose_device`. micro_batch: images at once. compile: use
    torch.compile. checkpoint_nimg: images between checkpoints. keep_checkpoints: how many to keep (0 = all), beside
    the scored ones. tick_nimg: images between lines of metrics. max_time_s: stop after that long, resumable.
    on_nan: `stop`, or `rollback` to the last checkpoint and pass over the batch, at most `max_rollbacks` times a run.
    shard: split the weights over the processes (FSDP2)."""

    duration_nimg: int
    score_at: tuple[int, ...] = ()
    device: str = "auto"
    micro_batch: int | None = None
    compile: bool = False
    checkpoint_nimg: int = 0
    keep_checkpoints: int = 2
    tick_nimg: int = 0
    max_time_s: float | None = None
    on_nan: str = "stop"
    max_rollbacks: int = 10
    shard: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.duration_nimg < 1:
            raise UsageError(f"duration {self.duration_nimg} must be at least 1 image")
        if any(not 1 <= n <= self.duration_nimg for n in self.score_at):
            raise UsageError(f"score_at {list(self.score_at)} must lie between 1 and the duration {self.duration_nimg}")
        if self.on_nan not in ON_NAN:
            raise UsageError(f"on-nan {self.on_nan!r} is not one of {', '.join(ON_NAN)}")
        if self.max_time_s is not None and not self.max_time_s > 0:
            raise UsageError(f"the time limit {self.max_time_s} s must be longer than 0")

    @property
    def scored(self) -> tuple[int, ...]:
        return tuple(sorted({*self.score_at, self.duration_nimg}))


def default_directory(root: Path, config: TrainConfig, dataset: str) -> Path:
    """`root/<dataset>-s<sigma>-c<share>-seed<k>-<hash8>`."""
    share = config.n_noisy / (config.n_clean + config.n_noisy)
    sigma = config.sigma if config.n_noisy else 0.0
    return root / f"{dataset}-s{sigma:g}-c{share:.4g}-seed{config.seed}-{config.hash}"


class RunDirectory:
    """Paths and files of one training. loggers: also hear of metrics, scores and rewinds."""

    def __init__(self, path: Path, loggers: Sequence[Logger] = ()):
        self.path = path
        self.loggers = loggers
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.metrics = path / "metrics.jsonl"
        self.result_file = path / "result.json"
        self.skipped_file = path / "skipped.json"

    def claim(self, config: TrainConfig, details: Mapping[str, Any]) -> None:
        """Write the manifest, or check that the one here is of the same config.

        Raises UsageError listing the keys that differ, or where the directory belongs to something else.
        """
        manifest = self.path / "manifest.json"
        if manifest.exists():
            stored = read_sealed(manifest)
            if stored.get("schema") != MANIFEST_SCHEMA:
                raise DataError(f"{manifest}: schema {stored.get('schema')!r} is not {MANIFEST_SCHEMA!r}")
            if differences := config.differences(stored["config"]):
                raise UsageError(
                    f"{self.path} holds a run with another config ({'; '.join(differences)}): "
                    "use the same settings to continue it, or another --outdir"
                )
            return
        if self.path.is_dir() and any(p.name != "lock" for p in self.path.iterdir()):
            raise UsageError(f"{self.path} is not empty and holds no run: choose another --outdir")
        write_sealed(
            manifest,
            {
                "schema": MANIFEST_SCHEMA,
                "config": config.to_dict(),
                "config_hash": config.hash,
                "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "versions": library_versions("torch", "numpy", "scipy", "scikit-learn", "safetensors", "pillow"),
                "hardware": {"machine": platform.machine(), "cpus": os.cpu_count(), "system": platform.system()},
                "command": sys.argv,
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

    def rewind_metrics(self, nimg: int) -> None:
        """Drop lines beyond `nimg` images, and a last line that was cut short."""
        for logger in self.loggers:
            logger.rewind(nimg)
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                if json.loads(line)["nimg"] <= nimg:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                continue
        atomic_write_text(self.metrics, "".join(line + "\n" for line in kept))

    def skipped(self) -> tuple[int, ...]:
        """First sample indices of the batches that a rollback passed over. Raises DataError if the list is damaged."""
        if not self.skipped_file.exists():
            return ()
        stored = read_sealed(self.skipped_file)
        if stored.get("schema") != SKIPPED_SCHEMA or not isinstance(stored.get("first_samples"), list):
            raise DataError(f"{self.skipped_file}: not a list of skipped batches")
        return tuple(int(start) for start in stored["first_samples"])

    def skip(self, starts: tuple[int, ...]) -> None:
        """Record all batches that are passed over, before training goes on without them."""
        write_sealed(self.skipped_file, {"schema": SKIPPED_SCHEMA, "first_samples": sorted(starts)})

    def result(self, config: TrainConfig | None = None) -> dict[str, Any] | None:
        """The sealed result, or None if it is missing, damaged or of another config."""
        try:
            stored = read_sealed(self.result_file)
        except DataError:
            return None
        if stored.get("schema") != RESULT_SCHEMA or (config and stored.get("config_hash") != config.hash):
            return None
        return stored

    def scores(self, config: TrainConfig, evaluation: EvalConfig) -> dict[int, list[Record]]:
        """Scored points of this config and evaluation, by image count."""
        stored = self.result(config)
        if stored is None:
            return {}
        wanted = evaluation.to_dict()
        out = {}
        for point in stored["points"]:
            if point["evaluation"] == wanted:
                out[int(point["nimg"])] = [Record.from_dict(r) for r in point["records"]]
        return out

    def add_scores(
        self, config: TrainConfig, evaluation: EvalConfig, nimg: int, records: list[Record], wall_s: float
    ) -> None:
        """Add one scored point to the sealed result; other points stay."""
        stored = self.result(config)
        wanted = evaluation.to_dict()
        points = [] if stored is None else stored["points"]
        points = [p for p in points if not (p["nimg"] == nimg and p["evaluation"] == wanted)]
        points.append({"nimg": nimg, "evaluation": wanted, "records": [r.to_dict() for r in records], "wall_s": wall_s})
        points.sort(key=lambda p: p["nimg"])
        write_sealed(
            self.result_file,
            {"schema": RESULT_SCHEMA, "config_hash": config.hash, "config": config.to_dict(), "points": points},
        )
        for logger in self.loggers:
            logger.scores(nimg, records)


@dataclass(frozen=True)
class Progress:
    """What a listener hears. phase: train, sample or score. done, total: images. rate: images per second."""

    phase: str
    done: int
    total: int
    rate: float
    loss: float | None = None


Listener = Callable[[Progress], None]
