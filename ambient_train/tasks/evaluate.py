"""What `evaluate` does: score a network, or a set of images, against references, with intervals and floors."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ambient_theory.shared.console import talk
from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import atomic_write_text
from ambient_theory.shared.records import Record, library_versions, write_records
from ambient_train.data.load import load_images
from ambient_train.diffusion.generate import generate
from ambient_train.diffusion.sampling import SamplerConfig
from ambient_train.evaluation import own_references
from ambient_train.evaluation.features import Extractor, default_extractors, get_extractor
from ambient_train.evaluation.references import Reference, is_statistics_file, open_reference
from ambient_train.evaluation.scores import Score, average_seeds, floor, score_images
from ambient_train.interchange.load import LoadedNetwork, load_denoiser
from ambient_train.runs.run import make_training_set
from ambient_train.settings.config import default_preset, get_preset
from ambient_train.tasks.generate import sampler_for
from ambient_train.training.world import choose_device


@dataclass(frozen=True)
class Evaluation:
    """Scores of one target: the mean over repeats where there are several; floors: of as many clean images, or None."""

    target: str
    scores: list[Score]
    floors: list[Score | None]
    notes: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        pairs = zip(self.scores, self.floors, strict=True)
        rows = [{**score.to_dict(), "floor": low.value if low else None} for score, low in pairs]
        return {"target": self.target, "scores": rows, **self.notes}

    def show(self) -> None:
        from rich.console import Console
        from rich.table import Table

        table = Table()
        for name in ("metric", "features", "against", "score", "floor", "n"):
            table.add_column(name, justify="right" if name in ("score", "floor", "n") else "left")
        for score, low in zip(self.scores, self.floors, strict=True):
            a, b = score.interval()
            table.add_row(
                score.metric,
                score.extractor.split(":")[0],
                score.reference,
                f"{score.value:.4g} [{a:.4g}, {b:.4g}]",
                f"{low.value:.4g}" if low else "",
                f"{score.n:,}",
            )
        Console().print(table)
        print("score with its 95 % interval; floor: the score of as many clean training images")
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
    """Score a network (images are generated, image k from seed `seed + k`) or a set of images.

    references: `heldout-clean`, `train-clean`, a data source, or an `.npz` of statistics. repeats: independent sets
    of n images each, for networks. extractors: empty = those that fit the images. Raises UsageError and DataError.
    """
    if repeats < 1:
        raise UsageError(f"repeats {repeats} must be >= 1")
    if n is not None and n < 40:
        raise UsageError(f"n {n}: at least 40 images are needed for a score")
    chosen = choose_device(device)
    if chosen.type == "cpu":
        torch.set_num_threads(1)
    if not target.exists():
        raise DataError(f"{target}: no such run, network or images")
    is_network = target.suffix == ".pkl" or (target / "manifest.json").exists() or (target / "config.json").exists()
    loaded = load_denoiser(target, device=chosen, nimg=nimg) if is_network else None
    if loaded is None and (repeats > 1 or nimg is not None):
        raise UsageError("--repeats and --at are for networks: a set of images is scored once")
    shape, sets = _image_sets(target, loaded, data, n, seed, repeats, sampler, chosen, quiet)
    names = list(extractors)
    if not names:
        names, why_not = default_extractors(shape[0], shape[1])
        for sentence in why_not:
            talk(f"left out {sentence}", quiet=quiet)
    features = [get_extractor(e, device=chosen) for e in names]
    available = _own_references(loaded, data, resolution, shape[1])
    targets = _references(references, available, features, resolution)
    every = [score_images(images, targets, features, metrics) for images in sets]
    scores = [average_seeds(group) for group in zip(*every, strict=True)]
    clean = available.get("train-clean")
    floors = [_floor(score, clean, targets, features) for score in scores]
    notes: dict[str, Any] = {}
    if save_stats is not None:
        notes["statistics"] = _save_statistics(save_stats, targets, features)
    if memorisation:
        generated = np.concatenate(
            list(next(iter(_image_sets(target, loaded, data, n, seed, 1, sampler, chosen, True)[1])))
        )
        notes["memorisation"] = _memorisation(generated, loaded, data, available, features[-1])
    result = Evaluation(str(target), scores, floors, notes)
    if outdir is not None:
        _write(result, outdir, loaded, shape)
    return result


Batches = Iterator[np.ndarray]


def _image_sets(
    target: Path,
    loaded: LoadedNetwork | None,
    data: str | None,
    n: int | None,
    seed: int,
    repeats: int,
    sampler: Mapping[str, Any],
    device: torch.device,
    quiet: bool,
) -> tuple[tuple[int, int], Iterator[Batches]]:
    """(channels, side) of the images, and for each repeat an iterator of uint8 batches."""
    if loaded is None:
        images = own_references.clean_uint8(load_images(str(target), split="all", holdout=0.0))[:n]
        return (images.shape[1], images.shape[2]), iter([iter([images])])
    name = data or (loaded.config.data if loaded.config else "")
    count = n or (get_preset(default_preset(name)).n_eval if loaded.config else 5000)
    settings = sampler_for(loaded, sampler)
    sets = (_generate(loaded, seed + k * count, count, settings, device, quiet) for k in range(repeats))
    return (loaded.network.img_channels, loaded.network.img_resolution), sets


def _generate(
    loaded: LoadedNetwork, first: int, count: int, sampler: SamplerConfig, device: torch.device, quiet: bool
) -> Batches:
    last, done = time.monotonic(), 0
    seeds = range(first, first + count)
    for batch in generate(loaded.network, seeds, sampler, precision=loaded.precision, device=device):
        done += len(batch)
        if time.monotonic() - last > 10:
            last = time.monotonic()
            talk(f"{done:,}/{count:,} images", quiet=quiet)
        yield batch


def _own_references(
    loaded: LoadedNetwork | None, data: str | None, resolution: int | None, side: int
) -> dict[str, Reference]:
    """`heldout-clean` and `train-clean` of the data set named, or of the run's own."""
    if data is not None:
        return own_references.references(data, resolution or side, None, None)
    if loaded is None or loaded.config is None:
        return {}
    c = loaded.config
    return own_references.references(c.data, resolution or c.resolution, c.holdout, c.max_images)


def _references(
    asked: tuple[str, ...], available: dict[str, Reference], features: list[Extractor], resolution: int | None
) -> dict[str, Reference]:
    if not asked:
        if not available:
            raise UsageError(
                "give --data (a data set to compare with) or --reference (images, or an .npz of statistics)"
            )
        return available
    out = {}
    for spec in asked:
        if spec in available:
            out[spec] = available[spec]
        elif spec in ("heldout-clean", "train-clean"):
            raise UsageError(f"reference {spec!r} is not to be had here: give --data, or another --reference")
        else:
            if is_statistics_file(spec) and len(features) != 1:
                raise UsageError(f"{spec} holds statistics of one extractor: give exactly one --extractor")
            side = None if is_statistics_file(spec) else resolution
            out[spec] = open_reference(spec, features[0], name=spec, resolution=side)
    return out


def _floor(
    score: Score, clean: Reference | None, targets: dict[str, Reference], features: list[Extractor]
) -> Score | None:
    if clean is None or clean.images is None or score.reference not in targets:
        return None
    extractor = next(e for e in features if e.label == score.extractor)
    metric = "fd" if score.metric == "fid" else score.metric
    return floor(clean.images, targets[score.reference], score.n, extractor, metrics=(metric,))[0]


def _save_statistics(path: Path, targets: dict[str, Reference], features: list[Extractor]) -> list[str]:
    """One file for each reference and extractor; with a single pair exactly `path`."""
    pairs = list(itertools.product(targets.values(), features))
    out = []
    for reference, extractor in pairs:
        stem = f"{path.stem}-{Path(reference.name).stem}-{extractor.name.split(':')[0]}.npz"
        file = path if len(pairs) == 1 else path.with_name(stem)
        reference.save(file, extractor)
        out.append(str(file))
    return out


def _memorisation(
    generated: np.ndarray,
    loaded: LoadedNetwork | None,
    data: str | None,
    available: dict[str, Reference],
    extractor: Extractor,
) -> dict[str, Any]:
    """Distances of the generated to the training images against those of held-out images (see `memorisation_check`)."""
    from ambient_train.evaluation.memorisation import memorisation_check

    train, heldout = available.get("train-clean"), available.get("heldout-clean")
    if train is None or heldout is None or train.images is None or heldout.images is None:
        raise UsageError("--memorisation needs training images and held-out images: give --data")
    own = train.images
    if loaded is not None and loaded.config is not None and data is None:
        c = loaded.config
        source = load_images(c.data, split="train", resolution=c.resolution, holdout=c.holdout, max_images=c.max_images)
        mixture = make_training_set(c, source)
        own = own_references.clean_uint8(mixture.clean_images() if mixture.n_clean else mixture.source)
    return memorisation_check(generated, own, heldout.images, extractor).to_dict()


def _write(result: Evaluation, outdir: Path, loaded: LoadedNetwork | None, shape: tuple[int, int]) -> None:
    """`scores.json`, and for a run of ours `records.jsonl` for `ambient compare`."""
    atomic_write_text(outdir / "scores.json", json.dumps(result.to_dict(), indent=1) + "\n")
    if loaded is None or loaded.config is None:
        return
    config = loaded.config
    resized = config.resolution is not None and config.data in ("digits", "fashion", "photos32")
    dataset = f"{config.data}{shape[1]}" if resized else config.data
    versions = library_versions("torch", "numpy", "scipy")
    records = [
        Record(
            source="train",
            dataset=dataset,
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
            versions=versions,
            extra={"floor": low.value if low else None, "interval95": list(s.interval()), "method": s.method},
        )
        for s, low in zip(result.scores, result.floors, strict=True)
        if s.metric != "is"
    ]
    write_records(outdir / "records.jsonl", records)
