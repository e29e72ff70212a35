"""What `train` does, from settings to a result that can show itself."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ambient_theory.shared.console import talk
from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.records import Record
from ambient_train.runs.loggers import check_loggers, make_loggers
from ambient_train.runs.progress import progress_listener
from ambient_train.runs.resolve import Resolved, resolve
from ambient_train.runs.run import RunDirectory, RunOptions, default_directory, execute, make_training_set
from ambient_train.settings.config import read_toml
from ambient_train.training.cost import measure
from ambient_train.training.world import World, join_group

_SHARES, _COUNTS = ("keep", "corruption"), ("n_clean", "n_noisy")


@dataclass(frozen=True)
class TrainResult:
    """Where the run is, and the scores of its last point."""

    directory: Path
    nimg: int
    records: list[Record]

    def to_dict(self) -> dict[str, Any]:
        return {"directory": str(self.directory), "nimg": self.nimg, "records": [r.to_dict() for r in self.records]}

    def show(self) -> None:
        show_records(self.records)
        print(f"run directory: {self.directory}")


@dataclass(frozen=True)
class DryRun:
    """The resolved config with the size of the network, the memory and the time it would take.

    memory_mb: the sum of state (weights, gradients, Adam's moments, averaged weights), activations of one micro-batch
    of `micro_batch` images as autograd keeps them, and the images; see `timing.StepCost`.
    """

    config: dict[str, Any]
    directory: Path
    duration_nimg: int
    parameters: int
    memory_mb: float
    state_mb: float
    activations_mb: float
    images_mb: float
    micro_batch: int
    img_per_s: float
    train_s: float
    n_clean: int
    n_noisy: int

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "directory": str(self.directory)}

    def show(self) -> None:
        for key, value in self.config.items():
            print(f"{key} = {value!r}")
        print(f"images: {self.n_clean:,} clean, {self.n_noisy:,} noisy; train on {self.duration_nimg:,}")
        print(f"parameters: {self.parameters:,}")
        print(
            f"memory: about {self.memory_mb:,.0f} MB: weights, gradients, Adam and averages {self.state_mb:,.0f}, "
            f"activations of {self.micro_batch:,} images at once {self.activations_mb:,.0f} (--micro-batch), "
            f"images {self.images_mb:,.0f}"
        )
        print(f"speed: {self.img_per_s:,.3g} img/s on this machine, training takes about {duration_text(self.train_s)}")
        print(f"run directory: {self.directory}")


def train_from_settings(
    flags: Mapping[str, Any],
    *,
    config_file: Path | None = None,
    outdir: Path | None = None,
    device: str = "auto",
    micro_batch: int | None = None,
    compiled: bool = False,
    keep_checkpoints: int = 2,
    max_time_s: float | None = None,
    on_nan: str = "stop",
    shard: bool = False,
    log: Sequence[str] = (),
    dry_run: bool = False,
    quiet: bool = False,
    runs: Path = Path("runs"),
) -> TrainResult | DryRun | None:
    """Resolve flags over a config file, then train and score, or only say what would be done.

    In a group of processes (torchrun, srun, `launch`) every process calls this; only the leader talks, writes and
    returns a result, the others return None.
    """
    begun = time.monotonic()
    with join_group(device) as world:
        with world.together():
            check_loggers(log)
            resolved = _resolve_flags(flags, config_file, quiet or not world.leader)
            if resolved.config.precision == "fp16" and world.device.type == "cpu":
                raise UsageError("precision fp16 needs a GPU: use bf16 or fp32 on a CPU")
            options = RunOptions(
                duration_nimg=resolved.duration_nimg,
                score_at=resolved.score_at,
                device=device,
                micro_batch=micro_batch,
                compile=compiled,
                keep_checkpoints=keep_checkpoints,
                max_time_s=max_time_s and max(max_time_s - (time.monotonic() - begun), 1e-3),
                on_nan=on_nan,
                shard=shard,
            )
        path = outdir or default_directory(runs, resolved.config, resolved.source.name)
        if world.device.type == "cpu" and resolved.config.arch == "SmallUNet":
            torch.set_num_threads(1)
        if dry_run:
            return _dry_run(resolved, path, world.device, micro_batch) if world.leader else None
        return _train(resolved, path, options, world, log, quiet or not world.leader)


def _resolve_flags(flags: Mapping[str, Any], config_file: Path | None, quiet: bool) -> Resolved:
    """Flags over a config file; shares given as flags replace counts of the file and the other way round."""
    asked = {k: v for k, v in flags.items() if v is not None}
    below = read_toml(config_file) if config_file else {}
    for group, other in ((_SHARES, _COUNTS), (_COUNTS, _SHARES)):
        if any(k in asked for k in group):
            below = {k: v for k, v in below.items() if k not in other}
    resolved = resolve({**below, **asked})
    if "corruption" in asked and asked["corruption"] > 0 and not resolved.config.sigma > 0:
        talk("note: --corruption without --sigma adds no noise", quiet=quiet)
    return resolved


def _train(
    resolved: Resolved, path: Path, options: RunOptions, world: World, log: Sequence[str], quiet: bool
) -> TrainResult | None:
    finished = RunDirectory(path).scores(resolved.config, resolved.evaluation)
    if set(options.scored) <= set(finished):
        talk(f"already done: {path} (give a larger --duration to train on)", quiet=quiet)
    else:
        c = resolved.config
        talk(
            f"{resolved.source.name}: {c.n_clean:,} clean and {c.n_noisy:,} noisy images (sigma {c.sigma:g}) -> {path}",
            quiet=quiet,
        )
    with progress_listener(quiet) as listener:
        scores = execute(
            resolved.config,
            resolved.source,
            path,
            options,
            resolved.evaluation,
            world=world,
            listener=listener,
            talk=lambda message: talk(message, quiet=quiet),
            details={"preset": resolved.preset, "data_hash": resolved.source.content_hash},
            loggers=make_loggers(log, path, resolved.config.to_dict()),
        )
    last = max(scores)
    return TrainResult(path, last, scores[last]) if world.leader else None


def _dry_run(resolved: Resolved, path: Path, device: torch.device, micro_batch: int | None) -> DryRun:
    config = resolved.config
    labels = resolved.source.labels
    label_dim = int(labels.max()) + 1 if config.cond and labels is not None else 0
    data = make_training_set(config, resolved.source)
    cost = measure(config, data, label_dim, device, micro_batch=micro_batch)
    at_once = min(micro_batch or config.batch, config.batch)
    sizes = [cost.state_bytes, cost.activation_bytes(at_once), resolved.source.images.nbytes]
    state_mb, activations_mb, images_mb = (size / 1e6 for size in sizes)
    return DryRun(
        config.to_dict(),
        path,
        resolved.duration_nimg,
        cost.parameters,
        state_mb + activations_mb + images_mb,
        state_mb,
        activations_mb,
        images_mb,
        at_once,
        cost.train_img_per_s,
        resolved.duration_nimg / cost.train_img_per_s,
        config.n_clean,
        config.n_noisy,
    )


def duration_text(seconds: float) -> str:
    """`42 s`, `3.5 min`, `2.1 h`, `4.0 days`."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.{0 if size == 1 else 1}f} {unit}"
    return f"{seconds / 86_400:.1f} days"


def show_records(records: list[Record]) -> None:
    """A table of scores with standard error and floors, on stdout."""
    from rich.console import Console
    from rich.table import Table

    if not records:
        print("no scores: the data has no clean image to compare with, or no features fit its images")
        return
    table = Table()
    for name in ("metric", "features", "against", "score", "floor", "n"):
        table.add_column(name, justify="right" if name in ("score", "floor", "n") else "left")
    for r in records:
        low, high = r.extra.get("interval95", (float("nan"), float("nan")))
        lowest = r.extra.get("floor")
        table.add_row(
            r.metric,
            r.extractor.split(":")[0],
            r.reference,
            f"{r.value:.4g} [{low:.4g}, {high:.4g}]",
            "" if lowest is None else f"{lowest:.4g}",
            f"{r.n_eval:,}",
        )
    Console().print(table)
    print("score with its 95 % interval; floor: the score of as many clean training images")
