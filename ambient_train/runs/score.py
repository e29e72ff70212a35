"""From weights to scored images: generate with the averaged weights, score, and say it in records."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.records import Record, library_versions
from ambient_train.settings.config import TrainConfig
from ambient_train.data.mixture import TrainingSet
from ambient_train.data.load import ImageSet, load_images
from ambient_train.evaluation.extractors.features import Extractor, get_extractor, to_uint8
from ambient_train.evaluation.references import Reference
from ambient_train.evaluation.scores import Score, floor, score_images
from ambient_train.networks.precond import EDMPrecond
from ambient_train.diffusion.sampling import Sampler, SamplerConfig, sample


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a run is scored. n: generated images. seed: seed of the first image; image k has seed `seed + k`.

    extractors: names for `get_extractor`. sampler: see `SamplerConfig`. metrics: `fd`, `kid`.
    """

    n: int = 2000
    seed: int = 1_000_000
    extractors: tuple[str, ...] = ("pixels", "smallcnn")
    metrics: tuple[str, ...] = ("fd", "kid")
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def to_dict(self) -> dict[str, Any]:
        d = asdict(self)
        d["extractors"], d["metrics"] = list(self.extractors), list(self.metrics)
        d["sampler"] = {k: (None if v == float("inf") else v) for k, v in d["sampler"].items()}
        return d


def denoiser(network: EDMPrecond, precision: str) -> Callable[..., Tensor]:
    """The network as a function (x, sigma, class_labels) -> D under autocast of the training's precision."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)

    def denoise(x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, dtype) if dtype else contextlib.nullcontext():
            return network(x, sigma, class_labels=class_labels)

    return denoise


def generate(
    network: EDMPrecond,
    seeds: Sequence[int],
    sampler: Sampler,
    *,
    precision: str = "fp32",
    batch: int = 256,
    device: torch.device | str = "cpu",
    classes: int | Sequence[int] | None = None,
) -> Iterator[np.ndarray]:
    """Batches of uint8 images [b, C, H, W], one per seed, in order.

    classes: for a conditional network one class for all, one per seed, or None: class `seed mod label_dim`.
    Raises UsageError for a class the network does not have.
    """
    labels = None
    if network.label_dim:
        if classes is None:
            chosen = [s % network.label_dim for s in seeds]
        else:
            chosen = [classes] * len(seeds) if isinstance(classes, int) else list(classes)
        if chosen and not 0 <= min(chosen) <= max(chosen) < network.label_dim:
            raise UsageError(f"class {max(chosen)}: this network has classes 0 to {network.label_dim - 1}")
        labels = torch.nn.functional.one_hot(torch.tensor(chosen), network.label_dim).float()
    elif classes is not None:
        raise UsageError("a class was asked for, but this network was trained without labels")
    shape = (network.img_channels, network.img_resolution, network.img_resolution)
    was_training = network.training
    network.eval()
    try:
        for images in sample(
            denoiser(network, precision), seeds, shape, sampler, batch=batch, device=device, class_labels=labels
        ):
            yield to_uint8(images)
    finally:
        network.train(was_training)


def save_grid(images: np.ndarray, path: Path, columns: int | None = None, scale: int | None = None) -> None:
    """Images uint8 [n, C, H, W] as one PNG grid; small ones are enlarged by whole factors to about 48 pixels."""
    n, c, h, w = images.shape
    columns = columns or max(1, int(np.ceil(np.sqrt(n))))
    rows = -(-n // columns)
    scale = scale or max(1, 48 // h)
    canvas = np.full((rows * (h * scale + 2) + 2, columns * (w * scale + 2) + 2, c), 255, np.uint8)
    for k, image in enumerate(images):
        y, x = 2 + (k // columns) * (h * scale + 2), 2 + (k % columns) * (w * scale + 2)
        canvas[y : y + h * scale, x : x + w * scale] = image.transpose(1, 2, 0).repeat(scale, 0).repeat(scale, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(canvas[:, :, 0] if c == 1 else canvas).save(path)


@functools.lru_cache(maxsize=8)
def references(
    data: str, resolution: int | None, holdout: float | None, max_images: int | None
) -> dict[str, Reference]:
    """`heldout-clean` (images never trained on) and `train-clean` (clean originals of the training part).

    Images that came with noise are left out; a part with fewer than two clean images gives no reference.
    """
    out = {}
    parts: tuple[tuple[str, Literal["heldout", "train"]], ...] = (
        ("heldout-clean", "heldout"),
        ("train-clean", "train"),
    )
    for name, split in parts:
        if split == "heldout" and holdout == 0:
            continue
        images = load_images(
            data,
            split=split,
            holdout=holdout,
            resolution=resolution,
            max_images=max_images if split == "train" else None,
        )
        clean = clean_uint8(images)
        if len(clean) >= 2:
            out[name] = Reference(name, clean)
    return out


def clean_uint8(images: ImageSet) -> np.ndarray:
    """The images without noise of their own, as uint8."""
    keep = slice(None) if images.sigma is None else images.sigma == 0
    chosen = images.images[keep]
    return chosen if chosen.dtype == np.uint8 else to_uint8(chosen)


def extractors_for(names: Sequence[str], channels: int) -> list[Extractor]:
    """The extractors that take images of so many channels. Raises UsageError if none does."""
    every = [get_extractor(name) for name in names]
    fitting = [e for e in every if e.channels is None or channels in e.channels]
    if not fitting:
        raise UsageError(f"none of {', '.join(names)} takes images with {channels} channel(s)")
    return fitting


def score_run(
    config: TrainConfig,
    evaluation: EvalConfig,
    generated: np.ndarray,
    data: TrainingSet,
    nimg: int,
    *,
    wall_s: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> list[Record]:
    """Records of one set of generated images: every extractor, reference and metric, with the floors at the same n.

    Empty where there is nothing to score with: no clean image in the data, or no extractor that fits the images.

    extra of a record: interval95, bias, floor (the score of as many clean training images), memorisation_floor (the
    score of a model that repeats the clean training subset), share of noisy images, sampler.
    """
    targets = references(config.data, config.resolution, config.holdout, config.max_images)
    if not targets or not evaluation.extractors:
        return []
    chosen = extractors_for(evaluation.extractors, data.shape[0])
    versions = library_versions("torch", "numpy", "scipy")
    own = clean_uint8(data.clean_images()) if data.n_clean else None
    records = []
    for extractor in chosen:
        scores = score_images(generated, targets, [extractor], evaluation.metrics)
        for reference in targets.values():
            floors = _floors(targets.get("train-clean"), reference, len(generated), extractor, evaluation.metrics)
            memorised = _by_metric(
                floor(own, reference, len(generated), extractor, metrics=evaluation.metrics) if own is not None else []
            )
            for score in scores:
                if score.reference != reference.name:
                    continue
                details = {
                    "interval95": list(score.interval()),
                    "bias": score.bias,
                    "method": score.method,
                    "n_reference": score.n_reference,
                    "floor": floors.get(score.metric),
                    "memorisation_floor": memorised.get(score.metric),
                    "corruption": data.n_noisy / len(data),
                    **(extra or {}),
                }
                records.append(
                    Record(
                        source="train",
                        dataset=data.source.name,
                        n_clean=data.n_clean,
                        n_noisy=data.n_noisy,
                        sigma_n=_levels(data),
                        metric=score.metric,
                        extractor=score.extractor,
                        value=score.value,
                        stderr=score.stderr,
                        n_eval=score.n,
                        seed=config.seed,
                        config_hash=config.hash,
                        reference=score.reference,
                        duration_nimg=nimg,
                        evaluation=evaluation.to_dict(),
                        versions=versions,
                        wall_s=wall_s,
                        extra=details,
                    )
                )
    return records


_FLOORS: dict[tuple[Any, ...], dict[str, float]] = {}


def _floors(
    train: Reference | None, reference: Reference, n: int, extractor: Extractor, metrics: Sequence[str]
) -> dict[str, float]:
    """Score of n clean training images against `reference`, computed once a process."""
    if train is None or train.images is None:
        return {}
    key = (id(train), id(reference), n, extractor.label, tuple(metrics))
    if key not in _FLOORS:
        _FLOORS[key] = _by_metric(floor(train.images, reference, n, extractor, metrics=metrics))
    return _FLOORS[key]


def _by_metric(scores: Sequence[Score]) -> dict[str, float]:
    return {s.metric: s.value for s in scores}


def _levels(data: TrainingSet) -> float | tuple[float, ...] | None:
    levels = sorted({float(s) for s in data.sigma_n.unique() if s > 0})
    if not levels:
        return None
    return levels[0] if len(levels) == 1 else tuple(levels)
