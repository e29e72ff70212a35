"""What `train`, `generate` and `evaluate` do, as functions whose results can show themselves."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ambient_theory.cells import atomic_write_text
from ambient_theory.console import talk
from ambient_theory.errors import DataError, UsageError
from ambient_theory.records import Record, write_records
from ambient_train import scoring
from ambient_train.config import default_preset, get_preset, read_toml
from ambient_train.data.sources import load_images
from ambient_train.distributed import World, choose_device
from ambient_train.evaluation.features import get_extractor
from ambient_train.evaluation.references import Reference
from ambient_train.evaluation.scores import Score, floor, score_images
from ambient_train.loading import LoadedNetwork, load_denoiser
from ambient_train.progress import progress_listener
from ambient_train.resolve import Resolved, resolve
from ambient_train.runs import RunDirectory, RunOptions, default_directory, execute, make_training_set
from ambient_train.sampling import SamplerConfig, parse_seeds
from ambient_train.training import TrainState, train

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
    """The resolved config with the size of the network, the memory and the time it would take."""

    config: dict[str, Any]
    directory: Path
    duration_nimg: int
    parameters: int
    memory_mb: float
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
        print(f"parameters: {self.parameters:,}   memory: about {self.memory_mb:,.0f} MB")
        print(f"speed: {self.img_per_s:,.0f} img/s on this machine, training takes about {duration_text(self.train_s)}")
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
    dry_run: bool = False,
    quiet: bool = False,
    runs: Path = Path("runs"),
) -> TrainResult | DryRun:
    """Resolve flags over a config file, then train and score, or only say what would be done."""
    asked = {k: v for k, v in flags.items() if v is not None}
    below = read_toml(config_file) if config_file else {}
    for group, other in ((_SHARES, _COUNTS), (_COUNTS, _SHARES)):
        if any(k in asked for k in group):
            below = {k: v for k, v in below.items() if k not in other}
    resolved = resolve({**below, **asked})
    if "corruption" in asked and asked["corruption"] > 0 and not resolved.config.sigma > 0:
        talk("note: --corruption without --sigma adds no noise", quiet=quiet)
    path = outdir or default_directory(runs, resolved.config, resolved.source.name)
    chosen = choose_device(device)
    if chosen.type == "cpu" and resolved.config.arch == "SmallUNet":
        torch.set_num_threads(1)
    if resolved.config.precision == "fp16" and chosen.type == "cpu":
        raise UsageError("precision fp16 needs a GPU: use bf16 or fp32 on a CPU")
    if dry_run:
        return _dry_run(resolved, path, chosen)
    options = RunOptions(
        duration_nimg=resolved.duration_nimg,
        score_at=resolved.score_at,
        device=device,
        micro_batch=micro_batch,
        compile=compiled,
        keep_checkpoints=keep_checkpoints,
    )
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
            world=World(device=chosen),
            listener=listener,
            talk=lambda message: talk(message, quiet=quiet),
            details={"preset": resolved.preset, "data_hash": resolved.source.content_hash},
        )
    last = max(scores)
    return TrainResult(path, last, scores[last])


def _dry_run(resolved: Resolved, path: Path, device: torch.device) -> DryRun:
    config = resolved.config
    data = make_training_set(config, resolved.source)
    labels = resolved.source.labels
    label_dim = int(labels.max()) + 1 if config.cond and labels is not None else 0
    state = TrainState(config, data.shape, label_dim, device)
    parameters = sum(p.numel() for p in state.network.parameters())
    steps = iter(train(state, data, 4 * config.batch, world=World(device=device)))
    next(steps)
    clock = time.monotonic()
    done = sum(1 for _ in itertools.islice(steps, 3))
    rate = done * config.batch / max(time.monotonic() - clock, 1e-9)
    activations = config.batch * data.shape[1] * data.shape[2] * 4 * 60 * 64
    memory = (parameters * 4 * 5 + activations + resolved.source.images.nbytes) / 1e6
    return DryRun(
        config.to_dict(),
        path,
        resolved.duration_nimg,
        parameters,
        memory,
        rate,
        resolved.duration_nimg / rate,
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

    table = Table(title=None)
    for name, right in (
        ("metric", False),
        ("features", False),
        ("against", False),
        ("score", True),
        ("95 % interval", True),
        ("floor at same n", True),
        ("n", True),
    ):
        table.add_column(name, justify="right" if right else "left")
    for r in records:
        low, high = r.extra.get("interval95", (float("nan"), float("nan")))
        lowest = r.extra.get("floor")
        table.add_row(
            r.metric,
            r.extractor.split(":")[0],
            r.reference,
            f"{r.value:.4g}",
            f"{low:.4g} .. {high:.4g}",
            "" if lowest is None else f"{lowest:.4g}",
            f"{r.n_eval:,}",
        )
    Console().print(table)


def _sampler(loaded: LoadedNetwork | None, flags: Mapping[str, Any]) -> SamplerConfig:
    base: Mapping[str, Any] = {}
    if loaded is not None and loaded.config is not None:
        base = get_preset(default_preset(loaded.config.data)).sampler
    return SamplerConfig(**{**base, **flags})


def generate_images(
    network: Path,
    outdir: Path,
    *,
    seeds: str,
    form: str = "png",
    subdirs: bool = False,
    label: int | None = None,
    sampler: Mapping[str, Any] | None = None,
    batch: int = 256,
    nimg: int | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """Write one PNG an image (`000123.png`), one npz (`images`, `seeds`), or one grid PNG; existing images with the
    same name are made again. Returns path and count."""
    if form not in ("png", "npz", "grid"):
        raise UsageError(f"format {form!r} is not one of png, npz, grid")
    if batch < 1:
        raise UsageError(f"batch {batch} must be >= 1")
    numbers = parse_seeds(seeds)
    chosen = choose_device(device)
    if chosen.type == "cpu":
        torch.set_num_threads(1)
    loaded = load_denoiser(network, device=chosen, nimg=nimg)
    for complaint in loaded.complaints:
        talk(f"passed over a damaged checkpoint: {complaint}", quiet=quiet)
    settings = _sampler(loaded, sampler or {})
    outdir.mkdir(parents=True, exist_ok=True)
    collected, done = [], 0
    made = scoring.generate(
        loaded.network, numbers, settings, precision=loaded.precision, batch=batch, device=chosen, classes=label
    )
    for images in made:
        if form == "png":
            for seed, image in zip(numbers[done : done + len(images)], images, strict=True):
                folder = outdir / f"{seed - seed % 1000:06d}" if subdirs else outdir
                folder.mkdir(exist_ok=True)
                pixels = image.transpose(1, 2, 0)
                Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(folder / f"{seed:06d}.png")
        else:
            collected.append(images)
        done += len(images)
        talk(f"{done:,}/{len(numbers):,} images", quiet=quiet or len(numbers) <= batch)
    path = outdir
    if form == "npz":
        path = outdir / "images.npz"
        temporary = outdir / ".images.npz.tmp"
        with open(temporary, "wb") as file:
            np.savez_compressed(file, images=np.concatenate(collected), seeds=np.asarray(numbers))
        temporary.replace(path)
    elif form == "grid":
        path = outdir / "grid.png"
        scoring.save_grid(np.concatenate(collected), path)
    return {
        "path": str(path),
        "images": len(numbers),
        "sampler": scoring.EvalConfig(sampler=settings).to_dict()["sampler"],
    }


@dataclass(frozen=True)
class Evaluation:
    """Scores of one target: the mean over repeats where there are several, with their floors."""

    target: str
    scores: list[Score]
    floors: list[Score]
    spread: list[float | None]
    notes: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        rows = []
        for score, low, spread in zip(self.scores, self.floors, self.spread, strict=True):
            rows.append({**score.to_dict(), "floor": low.value, "spread_over_seeds": spread})
        return {"target": self.target, "scores": rows, **self.notes}

    def show(self) -> None:
        from rich.console import Console
        from rich.table import Table

        table = Table()
        for name in ("metric", "features", "against", "score", "95 % interval", "floor at same n", "n"):
            table.add_column(name)
        for score, low in zip(self.scores, self.floors, strict=True):
            a, b = score.interval()
            table.add_row(
                score.metric,
                score.extractor.split(":")[0],
                score.reference,
                f"{score.value:.4g}",
                f"{a:.4g} .. {b:.4g}",
                f"{low.value:.4g}",
                f"{score.n:,}",
            )
        Console().print(table)
        for key, value in self.notes.items():
            print(f"{key}: {value}")


def evaluate_target(
    target: Path,
    *,
    data: str | None,
    resolution: int | None,
    n: int | None,
    seed: int,
    repeats: int,
    extractors: tuple[str, ...],
    metrics: tuple[str, ...],
    references: tuple[str, ...],
    save_stats: Path | None,
    memorisation: bool,
    sampler: Mapping[str, Any],
    nimg: int | None,
    device: str,
    outdir: Path | None,
    quiet: bool,
) -> Evaluation:
    """Score a network (images are generated) or a set of images against references, with floors at the same n."""
    if repeats < 1:
        raise UsageError(f"repeats {repeats} must be >= 1")
    chosen = choose_device(device)
    if chosen.type == "cpu":
        torch.set_num_threads(1)
    if not target.exists():
        raise DataError(f"{target}: no such run, network or images")
    is_network = target.suffix == ".pkl" or (target / "manifest.json").exists() or (target / "config.json").exists()
    loaded = load_denoiser(target, device=chosen, nimg=nimg) if is_network else None
    config = loaded.config if loaded else None
    name = data or (config.data if config else None)
    if name is None:
        raise UsageError("give --data: the data set to compare with")
    side = resolution or (config.resolution if config and data is None else None)
    holdout = config.holdout if config and data is None else None
    if side is None and data == "fashion" and loaded is not None:
        side = loaded.network.img_resolution

    sets: list[np.ndarray]
    if loaded is not None:
        preset = get_preset(default_preset(name))
        count = n or (preset.n_eval if config else 5000)
        settings = _sampler(loaded, sampler)
        sets = [_generate_set(loaded, seed + k * count, count, settings, chosen, quiet) for k in range(repeats)]
    else:
        if repeats > 1 or nimg is not None:
            raise UsageError("--repeats and --at are for networks: a set of images is scored once")
        images = scoring.clean_uint8(load_images(str(target), split="all", holdout=0.0))
        sets = [images[: n or len(images)]]
    available = scoring.references(name, side, holdout, None)
    targets: dict[str, Reference] = {}
    features = [get_extractor(e) for e in extractors]
    for reference in references:
        if reference in available:
            targets[reference] = available[reference]
        elif reference.endswith(".npz"):
            if len(features) != 1:
                raise UsageError(f"{reference} holds statistics of one extractor: give exactly one --extractor")
            targets[reference] = Reference.from_file(reference, features[0])
        else:
            raise UsageError(
                f"reference {reference!r} is not to be had: choose from {', '.join(available)} or give an .npz"
            )
    features = scoring.extractors_for(extractors, sets[0].shape[1])
    per_set = [score_images(images, targets, features, metrics) for images in sets]
    scores, spread = _combine(per_set)
    clean = available.get("train-clean")
    floors = []
    for score in scores:
        extractor = next(e for e in features if e.label == score.extractor)
        reference_object = next(r for r in targets.values() if r.name == score.reference)
        assert clean is not None
        assert clean.images is not None
        floors.append(floor(clean.images, reference_object, score.n, extractor, metrics=(score.metric,))[0])
    notes: dict[str, Any] = {}
    if save_stats is not None:
        for r, extractor in itertools.product(targets.values(), features):
            several = len(targets) * len(features) > 1
            stem = f"{save_stats.stem}-{Path(r.name).stem}-{extractor.name}.npz" if several else save_stats.name
            r.save(save_stats.with_name(stem), extractor)
        notes["statistics"] = str(save_stats.parent)
    if memorisation:
        from ambient_train.evaluation.memorisation import memorisation_check

        train_images, held = available.get("train-clean"), available.get("heldout-clean")
        if train_images is None or held is None or train_images.images is None or held.images is None:
            raise UsageError("--memorisation needs training images and held-out images")
        own = train_images.images
        if config is not None and data is None:
            source = load_images(
                config.data,
                split="train",
                resolution=config.resolution,
                holdout=config.holdout,
                max_images=config.max_images,
            )
            mixture = make_training_set(config, source)
            own = scoring.clean_uint8(mixture.clean_images() if mixture.n_clean else mixture.source)
        check = memorisation_check(sets[0], own, held.images, features[-1])
        notes["memorisation"] = check.to_dict()
    result = Evaluation(str(target), scores, floors, spread, notes)
    if outdir is not None:
        _write_scores(result, outdir, loaded, name)
    return result


def _generate_set(
    loaded: LoadedNetwork, first: int, count: int, sampler: SamplerConfig, device: torch.device, quiet: bool
) -> np.ndarray:
    images, last = [], time.monotonic()
    for batch in scoring.generate(
        loaded.network, range(first, first + count), sampler, precision=loaded.precision, device=device
    ):
        images.append(batch)
        if time.monotonic() - last > 10:
            last = time.monotonic()
            talk(f"{sum(map(len, images)):,}/{count:,} images", quiet=quiet)
    return np.concatenate(images)


def _combine(per_set: list[list[Score]]) -> tuple[list[Score], list[float | None]]:
    """One set: its scores. Several: mean, standard error of the mean and spread over the sets."""
    if len(per_set) == 1:
        return per_set[0], [None] * len(per_set[0])
    out, spreads = [], []
    for group in zip(*per_set, strict=True):
        values = [s.value for s in group]
        spread = statistics.stdev(values)
        out.append(
            replace(
                group[0],
                value=statistics.mean(values),
                stderr=spread / len(values) ** 0.5,
                df=len(values) - 1,
                method=f"mean of {len(values)} independent sets of images",
            )
        )
        spreads.append(spread)
    return out, spreads


def _write_scores(result: Evaluation, outdir: Path, loaded: LoadedNetwork | None, data: str) -> None:
    import json

    outdir.mkdir(parents=True, exist_ok=True)
    atomic_write_text(outdir / "scores.json", json.dumps(result.to_dict(), indent=1) + "\n")
    if loaded is None or loaded.config is None:
        return
    config = loaded.config
    records = [
        Record(
            source="train",
            dataset=data,
            n_clean=config.n_clean,
            n_noisy=config.n_noisy,
            sigma=config.sigma if config.n_noisy else None,
            metric=s.metric,
            extractor=s.extractor,
            value=s.value,
            stderr=s.stderr,
            n_eval=s.n,
            seed=config.seed,
            config_hash=config.hash,
            reference=s.reference,
            duration_nimg=loaded.nimg,
            extra={"floor": low.value, "interval95": list(s.interval()), "method": s.method},
        )
        for s, low in zip(result.scores, result.floors, strict=True)
    ]
    write_records(outdir / "records.jsonl", records)
