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
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ambient_theory.cells import atomic_write_text, exclusive_lock, read_sealed, write_sealed
from ambient_theory.errors import BusyError, DataError, StoppedError, UsageError
from ambient_theory.records import Record, library_versions
from ambient_train import checkpoints, scoring
from ambient_train.config import TrainConfig
from ambient_train.data.corruption import TrainingSet, corrupt
from ambient_train.data.sources import ImageSet
from ambient_train.distributed import World
from ambient_train.scoring import EvalConfig
from ambient_train.signals import StopRequest, graceful_stop
from ambient_train.training import TrainState, train

MANIFEST_SCHEMA, RESULT_SCHEMA = "ambient.run/1", "ambient.run-result/1"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What does not change the weights. duration_nimg: train until then. score_at: image counts at which the run is
    scored, the last one being the duration. device: see `choose_device`. micro_batch: images at once. compile: use
    torch.compile. checkpoint_nimg: images between checkpoints. keep_checkpoints: how many to keep (0 = all), beside
    the scored ones. tick_nimg: images between lines of metrics. max_time_s: stop after that long, resumable."""

    duration_nimg: int
    score_at: tuple[int, ...] = ()
    device: str = "auto"
    micro_batch: int | None = None
    compile: bool = False
    checkpoint_nimg: int = 0
    keep_checkpoints: int = 2
    tick_nimg: int = 0
    max_time_s: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.duration_nimg < 1:
            raise UsageError(f"duration {self.duration_nimg} must be at least 1 image")
        if any(not 1 <= n <= self.duration_nimg for n in self.score_at):
            raise UsageError(f"score_at {list(self.score_at)} must lie between 1 and the duration {self.duration_nimg}")

    @property
    def scored(self) -> tuple[int, ...]:
        return tuple(sorted({*self.score_at, self.duration_nimg}))


def default_directory(root: Path, config: TrainConfig, dataset: str) -> Path:
    """`root/<dataset>-s<sigma>-c<share>-seed<k>-<hash8>`."""
    share = config.n_noisy / (config.n_clean + config.n_noisy)
    sigma = config.sigma if config.n_noisy else 0.0
    return root / f"{dataset}-s{sigma:g}-c{share:.4g}-seed{config.seed}-{config.hash}"


class RunDirectory:
    """Paths and files of one training."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.metrics = path / "metrics.jsonl"
        self.result_file = path / "result.json"

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

    def rewind_metrics(self, nimg: int) -> None:
        """Drop lines beyond `nimg` images, and a last line that was cut short."""
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


@dataclass(frozen=True)
class Progress:
    """What a listener hears. phase: train, sample or score. done, total: images. rate: images per second."""

    phase: str
    done: int
    total: int
    rate: float
    loss: float | None = None


Listener = Callable[[Progress], None]


def make_training_set(config: TrainConfig, source: ImageSet) -> TrainingSet:
    """The mixture of the config. Raises DataError if the images are not those of the config's data hash."""
    if config.data_hash and source.content_hash[:16] != config.data_hash:
        raise DataError(
            f"{config.data}: the images have changed (hash {source.content_hash[:16]}, the run has {config.data_hash})"
        )
    return corrupt(source, n_clean=config.n_clean, n_noisy=config.n_noisy, sigma=config.sigma, seed=config.seed)


def execute(
    config: TrainConfig,
    source: ImageSet,
    path: Path,
    options: RunOptions,
    evaluation: EvalConfig,
    *,
    world: World | None = None,
    listener: Listener | None = None,
    talk: Callable[[str], None] = lambda message: None,
    details: Mapping[str, Any] | None = None,
) -> dict[int, list[Record]]:
    """Train (or continue, or find it done) and score at each of `options.scored`; returns the scores by image count.

    Raises UsageError for another config or a second process on the directory, DataError where no checkpoint holds,
    DivergedError, and StoppedError after saving when a signal or the time limit asks to leave.
    """
    directory = RunDirectory(path)
    started = time.monotonic()
    with exclusive_lock(path / "lock") as mine:
        if not mine:
            raise BusyError(f"{path} is in use by another process: wait for it, or choose another --outdir")
        directory.claim(config, details or {})
        scores = directory.scores(config, evaluation)
        missing = [n for n in options.scored if n not in scores]
        if not missing:
            return scores
        data = make_training_set(config, source)
        world = world or World()
        label_dim = int(source.labels.max()) + 1 if config.cond and source.labels is not None else 0
        if config.cond and label_dim == 0:
            raise UsageError(f"--cond needs labels, and {config.data} has none")
        state = TrainState(config, data.shape, label_dim, world.device)
        with graceful_stop() as stop:
            for target in missing:
                _reach(state, directory, target, talk)
                _train_to(state, data, directory, target, options, world, stop, listener, started)
                records = _score(state, data, directory, options, evaluation, world, stop, listener, started)
                scores[target] = records
        return {n: scores[n] for n in options.scored}


def _reach(state: TrainState, directory: RunDirectory, target: int, talk: Callable[[str], None]) -> None:
    """Load the newest checkpoint that holds and does not lie beyond `target`, unless the state is as far already."""
    everything = checkpoints.available(directory.checkpoints)
    damaged = []
    for candidate in reversed(everything):
        nimg = int(candidate.name)
        if nimg >= target + state.config.batch or nimg <= state.nimg:
            continue
        try:
            checkpoint = checkpoints.load(candidate)
        except DataError as error:
            damaged.append(str(error))
            continue
        if checkpoint.meta.get("config_hash") != state.config.hash:
            damaged.append(f"{candidate}: of another config")
            continue
        state.restore(checkpoint)
        directory.rewind_metrics(state.nimg)
        for message in damaged:
            talk(f"passed over a damaged checkpoint: {message}")
            directory.log(message)
        talk(f"continuing at {state.nimg:,} images")
        directory.log(f"resumed at {state.nimg}")
        return
    if damaged and state.nimg == 0:
        raise DataError(
            f"no checkpoint in {directory.checkpoints} holds ({'; '.join(damaged)}): "
            "restore one, or remove that folder to start again"
        )
    if state.nimg == 0:
        directory.rewind_metrics(0)


def _train_to(
    state: TrainState,
    data: TrainingSet,
    directory: RunDirectory,
    target: int,
    options: RunOptions,
    world: World,
    stop: StopRequest,
    listener: Listener | None,
    started: float,
) -> None:
    batch = state.config.batch
    every = options.checkpoint_nimg or max(batch * 50, options.duration_nimg // 10)
    tick = options.tick_nimg or max(batch, options.duration_nimg // 50)
    torch.backends.cuda.matmul.allow_tf32 = state.config.precision != "fp32"
    clock, before = time.monotonic(), state.nimg

    def save() -> None:
        checkpoints.save(directory.checkpoints, state.checkpoint())
        checkpoints.prune(directory.checkpoints, options.keep_checkpoints, _protected(options, batch))

    steps = train(state, data, target, world=world, micro_batch=options.micro_batch, compiled=options.compile)
    for end in steps:
        crossed_tick = end.nimg // tick != (end.nimg - batch) // tick
        done = end.nimg >= target
        now = time.monotonic()
        rate = (end.nimg - before) / max(now - clock, 1e-9)
        if crossed_tick or done:
            n = state.sums["steps"]
            directory.append_metrics(
                {
                    "nimg": end.nimg,
                    "loss": state.sums["loss"] / n,
                    "grad_norm": state.sums["grad_norm"] / n,
                    "lr": end.lr,
                    "img_per_s": round(rate, 1),
                    "wall_s": round(now - started, 2),
                }
            )
            state.sums = dict.fromkeys(state.sums, 0.0)
        if listener:
            listener(Progress("train", end.nimg, target, rate, end.loss))
        late = options.max_time_s is not None and now - started > options.max_time_s
        if done or end.nimg // every != (end.nimg - batch) // every or stop.signal or late:
            save()
        if not done and stop.signal:
            directory.log(f"stopped by {stop.signal.name} at {state.nimg}")
            stop.check(f"saved at {state.nimg:,} images in {directory.path}")
        if not done and late:
            directory.log(f"time limit reached at {state.nimg}")
            raise StoppedError(
                f"the time limit is reached: saved at {state.nimg:,} images in {directory.path}; "
                "the same command continues"
            )


def _protected(options: RunOptions, batch: int) -> set[int]:
    """Image counts of the checkpoints at which the run is scored (whole steps)."""
    return {-(-n // batch) * batch for n in options.scored}


def _score(
    state: TrainState,
    data: TrainingSet,
    directory: RunDirectory,
    options: RunOptions,
    evaluation: EvalConfig,
    world: World,
    stop: StopRequest,
    listener: Listener | None,
    started: float,
) -> list[Record]:
    saved = {name: p.detach().clone() for name, p in state.network.named_parameters()}
    state.ema.copy_to(state.network)
    try:
        images, clock = [], time.monotonic()
        count = 0
        seeds = range(evaluation.seed, evaluation.seed + evaluation.n)
        for batch in scoring.generate(
            state.network, seeds, evaluation.sampler, precision=state.config.precision, device=world.device
        ):
            images.append(batch)
            count += len(batch)
            if listener:
                listener(Progress("sample", count, evaluation.n, count / max(time.monotonic() - clock, 1e-9)))
            stop.check(f"training is saved at {state.nimg:,} images in {directory.path}")
        generated = np.concatenate(images)
        scoring.save_grid(generated[:64], directory.samples / f"{state.nimg:012d}.png")
        if listener:
            listener(Progress("score", 0, 1, 0.0))
        target = min((n for n in options.scored if n <= state.nimg < n + state.config.batch), default=state.nimg)
        records = scoring.score_run(
            state.config,
            evaluation,
            generated,
            data,
            target,
            wall_s=round(time.monotonic() - started, 2),
            extra=options.extra,
        )
        stop.check(f"training is saved at {state.nimg:,} images in {directory.path}")
        directory.add_scores(state.config, evaluation, target, records, time.monotonic() - started)
        directory.log(f"scored at {state.nimg}")
        return records
    finally:
        with torch.no_grad():
            for name, p in state.network.named_parameters():
                p.copy_(saved[name])
