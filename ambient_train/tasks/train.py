"""What `train` does, from settings to a result that can show itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ambient_theory.shared.console import starting, talk
from ambient_theory.shared.frames import flat, frame
from ambient_theory.shared.notebooks import picture_html
from ambient_theory.shared.plain_text import duration_text
from ambient_theory.shared.progress import progress_listener
from ambient_theory.shared.records import Record
from ambient_theory.shared.toml_text import toml_value
from ambient_train.diffusion.draws import TABLE as DRAWS
from ambient_train.diffusion.sampler_settings import OneStep
from ambient_train.interchange.load import starting_weights
from ambient_train.networks.execution import one_thread_for_small
from ambient_train.runs.asked import asked_details, find_run
from ambient_train.runs.directory import RunDirectory, default_directory
from ambient_train.runs.loggers import check_loggers, make_loggers
from ambient_train.runs.precision import check_precision, settled, with_precision
from ambient_train.runs.resolve import Job, resolve
from ambient_train.runs.run import execute
from ambient_train.runs.score import check_features
from ambient_train.settings.config import AUTO
from ambient_train.settings.layers import TrainSettings
from ambient_train.settings.run_options import RunOptions, process_share
from ambient_train.tasks.forecast import forecast, forecast_here
from ambient_train.tasks.show import show_scores
from ambient_train.training.checkpoints import available
from ambient_train.training.cost import measure
from ambient_train.training.world import World, join_group


@dataclass(frozen=True, repr=False)
class TrainResult:
    """Where the run is, and the scores of its last point. scored: whether it was to be scored."""

    directory: Path
    nimg: int
    records: list[Record]
    scored: bool = True

    def __repr__(self) -> str:
        scores = [r for r in self.records if r.checkpoint == "last" and r.level is None]
        shown = ", ".join(f"{r.metric} {r.value:.4g} ({r.extractor}, {r.reference})" for r in scores[:2])
        return f"TrainResult({str(self.directory)!r}, {self.nimg:,} images{': ' + shown if shown else ''})"

    def _repr_html_(self) -> str:
        """The newest grid of samples above the same in words, for notebooks."""
        grids = sorted((self.directory / "samples").glob("*.png"))
        return picture_html(grids[-1] if grids else None, repr(self))

    def to_frame(self) -> Any:
        """The scores as a `pandas.DataFrame`, one row a record, floors and intervals in columns of their own. Raises
        UsageError without pandas."""
        return frame(flat(r.to_dict()) for r in self.records)

    def to_dict(self) -> dict[str, Any]:
        records = [r.to_dict() for r in self.records]
        return {"directory": str(self.directory), "nimg": self.nimg, "scored": self.scored, "records": records}

    def show(self) -> None:
        if self.scored:
            show_scores(self.records)
        else:
            print(f"trained on {self.nimg:,} images, not scored: the same command without --no-score scores it")
        print(f"run directory: {self.directory}")


@dataclass(frozen=True, repr=False)
class DryRun:
    """The resolved config with the size of the network, the memory and the time it would take.

    memory_mb: the sum of state (weights, gradients, Adam's moments, averaged weights), activations of one micro-batch
    of `micro_batch` images as autograd keeps them, and the images; see `cost.StepCost`. forecast: a sentence on what
    would take long and which flags shorten it, None where nothing does.
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
    forecast: str | None = None

    def __repr__(self) -> str:
        took = f"about {duration_text(self.train_s)}, {self.memory_mb:,.0f} MB"
        return f"DryRun({str(self.directory)!r}, {self.duration_nimg:,} images to train on: {took})"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "directory": str(self.directory)}

    def show(self) -> None:
        for key, value in self.config.items():
            print(f"{key} = {toml_value(value)}" if value is not None else f"# {key}: not set")
        print(f"images: {self.n_clean:,} clean, {self.n_noisy:,} noisy; train on {self.duration_nimg:,}")
        print(f"parameters: {self.parameters:,}")
        print(
            f"memory: about {self.memory_mb:,.0f} MB: weights, gradients, Adam and averages {self.state_mb:,.0f}, "
            f"activations of {self.micro_batch:,} images at once {self.activations_mb:,.0f} (--micro-batch), "
            f"images {self.images_mb:,.0f}"
        )
        print(f"speed: {self.img_per_s:,.3g} img/s on this machine, training takes about {duration_text(self.train_s)}")
        if self.forecast:
            print(self.forecast)
        print(f"run directory: {self.directory}")


def train(
    settings: TrainSettings,
    options: RunOptions | None = None,
    *,
    outdir: Path | None = None,
    log: Sequence[str] = (),
    dry_run: bool = False,
    quiet: bool = False,
    runs: Path = Path("runs"),
) -> TrainResult | DryRun | None:
    """Train and score, or only say what would be done.

    outdir: the run directory, by default one below `runs` that is named after the run. log: `tensorboard`, `wandb`.
    In a group of processes (torchrun, srun, `launch`) every process calls this; only the leader talks, writes and
    returns a result, the others return None. Raises as `resolve` and `execute` do.
    """
    begun = time.monotonic()
    options = options or RunOptions()
    with join_group(options.device) as world:
        quiet = quiet or not world.leader
        with world.together():
            check_loggers(log)
            process_share(settings.train.batch, world.size, options.micro_batch)
            check_precision(settings.train.precision, world.device)
        settings, chosen = _settled(settings, world, outdir, runs)
        with world.together(), starting("reading the images", quiet=quiet):
            job = resolve(settings, weights_of=starting_weights)
        if chosen:
            talk(chosen, quiet=quiet)
        if options.max_time_s is not None:
            options = replace(options, max_time_s=max(options.max_time_s - (time.monotonic() - begun), 1e-3))
        path = outdir or default_directory(runs, job)
        one_thread_for_small(job.config.arch, world.device)
        if dry_run:
            world.by_leader(lambda: RunDirectory(path).check(job.config))
            if options.score:
                check_features(job.evaluation, job.shape[0])
            return _dry_run(job, path, world, options) if world.leader else None
        return _train(job, settings, path, options, world, log, quiet)


def _settled(settings: TrainSettings, world: World, outdir: Path | None, runs: Path) -> tuple[TrainSettings, str]:
    """The settings with `auto` replaced, on every rank as on the leader, and a sentence on it; "" where none was."""
    if settings.train.precision != AUTO:
        return settings, ""
    known: list[bool] = []

    def begun(candidate: TrainSettings) -> bool:
        if outdir is not None:
            path: Path | None = outdir
        elif (found := find_run(runs, candidate)).path is not None or found.certain:
            path = found.path
        else:
            path = default_directory(runs, resolve(candidate, weights_of=starting_weights))
        there = path is not None and RunDirectory(path).precision() == candidate.train.precision
        known.append(there)
        return there

    precision = world.by_leader(lambda: settled(settings, world.device, begun).train.precision)
    why = "as the run began" if any(known) else f"auto on this {world.device.type} device, kept by the run"
    return with_precision(settings, precision), f"precision {precision}: {why}"


def _train(
    job: Job,
    settings: TrainSettings,
    path: Path,
    options: RunOptions,
    world: World,
    log: Sequence[str],
    quiet: bool,
) -> TrainResult | None:
    if set(job.schedule.scored) <= set(RunDirectory(path).scores(job.config, job.evaluation)):
        talk(f"already done: {path} (give a larger --duration to train on)", quiet=quiet)
    else:
        for sentence in announce(job):
            talk(sentence, quiet=quiet)
        talk(f"-> {path}", quiet=quiet)
        fresh = not available(RunDirectory(path).checkpoints)
        if fresh and not quiet and (said := forecast_here(job, world, score=options.score)):
            talk(said)
    with progress_listener(quiet) as listener:
        scores = execute(
            job,
            path,
            options,
            world=world,
            listener=listener,
            talk=lambda message: talk(message, quiet=quiet),
            details=asked_details(settings),
            loggers=make_loggers(log, path, job.config.to_dict()),
        )
    last = job.schedule.duration_nimg
    return TrainResult(path, last, scores.get(last, []), last in scores) if world.leader else None


def announce(job: Job) -> list[str]:
    """What is trained on, in sentences: numbers, levels, noise that came with the data, what only noise can teach."""
    c = job.config
    levels = ", ".join(f"{s:.4g}" for s in job.levels)
    noisy = f"{c.n_noisy:,} noisy images (sigma {levels})" if c.n_noisy else "no noisy ones"
    out = [f"{job.dataset}: {c.n_clean:,} clean images and {noisy}"]
    if came := job.came_noisy():
        out.append(came)
    out.extend(f"note: {note}" for note in job.source.notes)
    if (teacher := job.teacher) is not None:
        out.append(f"distilling {teacher.path} as it was after {teacher.nimg:,} images into a one-step generator")
    if job.start is not None:
        out.append(
            f"beginning from {c.init} (weights {c.start}): what images are worth here is what they add to its own"
        )
    ramp = c.draw_epochs * c.n_clean if DRAWS[c.draw].ramps and c.n_noisy else 0.0
    if ramp > (end := job.schedule.duration_nimg):
        out.append(
            f"note: noisy images come in over {ramp:,.0f} images ({c.draw_epochs:g} epochs of the clean ones), and "
            f"these are {end:,}: at the end they have {100 * end / ramp:.2g} % of their share. Beside so many clean "
            "images they cost steps; a longer --duration uses them, --draw sigma-first does from the start"
        )
    sampler = job.evaluation.sampler
    if c.n_clean == 0 and not isinstance(sampler, OneStep):
        lowest, stop = job.levels[0], sampler.stop_sigma
        if stop < lowest:
            out.append(
                f"note: without a clean image nothing is learned below sigma {lowest:.4g}, and samples go down to "
                f"{stop:g}: give --stop-sigma {lowest:.4g} to end where the data end"
            )
    return out


def _dry_run(job: Job, path: Path, world: World, options: RunOptions) -> DryRun:
    cost = measure(
        job.config,
        job.training_set(),
        job.label_dim,
        world.device,
        micro_batch=options.micro_batch,
        recompute=options.recompute,
    )
    _, at_once = process_share(job.config.batch, world.size, options.micro_batch)
    sizes = [cost.state_bytes, cost.activation_bytes(at_once), job.source.images.nbytes]
    state_mb, activations_mb, images_mb = (size / 1e6 for size in sizes)
    duration = job.schedule.duration_nimg
    rate = cost.rate(job.config)
    return DryRun(
        job.config.to_dict(),
        path,
        duration,
        cost.parameters,
        state_mb + activations_mb + images_mb,
        state_mb,
        activations_mb,
        images_mb,
        at_once,
        rate,
        duration / rate,
        job.config.n_clean,
        job.config.n_noisy,
        forecast(job, cost, score=options.score) if world.size == 1 else None,
    )
