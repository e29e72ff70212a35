"""The Python API of the trainer: what the commands do, as functions of keyword arguments.

    from ambient_train import load, train

    run = train(data="digits", sigma=0.6, corruption=0.9, duration="20k", outdir="runs/first")
    model = load(run.directory)
    images = model.generate(range(16))                  # uint8 [16, C, H, W]
    clean = model.denoise(noisy, sigma=0.6)             # float32, units of [-1, 1]

A keyword is the key of an option (docs/options.md, the column `in TOML`, or the flag with underscores); values may be
Python's own or the text that a flag takes (`duration="200k"`). Unknown keywords, wrong types and broken rules raise
UsageError, data that cannot be used DataError (`ambient_theory.shared.errors`), before anything is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.options import Given, by_key, from_mapping, read_values
from ambient_train.diffusion.generate import denoiser
from ambient_train.diffusion.generate import generate as batches_of
from ambient_train.diffusion.sampler_settings import GeneralSamplerConfig
from ambient_train.interchange.load import Trained, load_trained
from ambient_train.settings.evaluation import ScoreOptions
from ambient_train.settings.layers import NetworkFlags, check_known, over_file, read_toml, with_network
from ambient_train.settings.requests import AtCheckpoint, GenerateOptions, Question
from ambient_train.settings.restore import RestoreOptions
from ambient_train.settings.run_options import RunOptions
from ambient_train.tasks import evaluate as evaluating
from ambient_train.tasks import generate as generating
from ambient_train.tasks import restore as restoring
from ambient_train.tasks import train as training
from ambient_train.training.world import choose_device

StrPath = str | os.PathLike[str]


def train(
    *,
    config: StrPath | None = None,
    outdir: StrPath | None = None,
    runs: StrPath = "runs",
    log: Sequence[str] = (),
    dry_run: bool = False,
    quiet: bool = True,
    **settings: Any,
) -> training.TrainResult | training.DryRun:
    """Train a diffusion model on a mixture of clean and noisy images, and score it; `ambient train`.

    config: a TOML file of settings; keywords win over it. settings: those of the training (`data`, `sigma`,
    `corruption`, `duration`, `preset`, `seed`, ..., `network={...}`, `evaluation={..., "sampler": {...}}`) and of the
    run (`device`, `micro_batch`, `max_time_s`, ...). outdir: the run directory, by default one below `runs`. The same
    call again continues, or finds it done. Returns the run's directory and its scores, or with `dry_run` what it would
    take. Raises UsageError, DataError, DivergedError, StoppedError.
    """
    check_known(settings, RunOptions, NetworkFlags)
    own = {key: settings.pop(key) for key in list(settings) if key in by_key(RunOptions)}
    options = from_mapping(RunOptions, own, where="option")
    network = {key: settings.pop(key) for key in list(settings) if key in by_key(NetworkFlags)}
    given = with_network(settings, read_values(NetworkFlags, network, where="option"))
    asked = over_file(read_toml(Path(config)) if config is not None else {}, given)
    made = training.train(
        asked,
        options,
        outdir=None if outdir is None else Path(outdir),
        log=tuple(log),
        dry_run=dry_run,
        quiet=quiet,
        runs=Path(runs),
    )
    assert made is not None, "one process is its own leader"
    return made


def load(source: StrPath, *, at: int | str | None = None, weights: str = "ema", device: str = "auto") -> Model:
    """A trained network: a run directory, an exported one, an EDM `.pkl` or `hf:ORGANISATION/NAME`.

    at: its checkpoint after so many images (`320`, `"100k"`), None: the newest. weights: `ema` (averaged) or `network`
    (as trained). Raises UsageError, DataError.
    """
    moment = from_mapping(AtCheckpoint, {"at": at}, where="option").nimg
    return Model(load_trained(source, weights=weights, nimg=moment, device=choose_device(device)))


@dataclass(frozen=True, repr=False)
class Model:
    """A trained network as two functions of arrays. trained: the network itself (a torch module) and its memory."""

    trained: Trained

    def __repr__(self) -> str:
        c, side = self.trained.network.img_channels, self.trained.network.img_resolution
        return f"{self.trained!r}, images [{c}, {side}, {side}]"

    def generate(
        self, seeds: Iterable[int], *, label: int | None = None, batch: int = 256, **sampler: Any
    ) -> npt.NDArray[np.uint8]:
        """Images uint8 [n, C, H, W], one a seed; image k is a function of its seed alone.

        label: the class, for a conditional network; None: seed modulo classes. sampler: options of the sampler
        (`steps`, `stop_sigma`, ...) over those that the run is scored with. Raises UsageError.
        """
        own = read_values(GeneralSamplerConfig, sampler, where="option")
        chosen = generating.sampler_for(self.trained, Given(GeneralSamplerConfig, own))
        numbers = [int(s) for s in seeds]
        if not numbers:
            raise UsageError("no seeds: give one an image, such as range(16)")
        made = batches_of(
            self.trained.network,
            numbers,
            chosen,
            precision=self.trained.precision,
            batch=_batch(batch),
            device=self._device,
            classes=label,
        )
        return np.concatenate(list(made))

    def denoise(self, noisy: npt.ArrayLike, sigma: npt.ArrayLike, *, batch: int = 256) -> npt.NDArray[np.float32]:
        """The posterior mean D(y, sigma) = E[x_0 | y] of each image, [n, C, H, W] float32 in units of [-1, 1].

        noisy: [n, C, H, W] in units of [-1, 1], y = x_0 + sigma noise. sigma: one level > 0, or one an image [n].
        Raises UsageError for other shapes and levels, DataError for values that are not finite. A conditional network
        is run without a class.
        """
        if self.trained.one_step:
            raise UsageError(f"{self.trained.name} is a distilled generator, no denoiser: load the run it came from")
        network = self.trained.network
        y = np.asarray(noisy, np.float32)
        shape = (network.img_channels, network.img_resolution, network.img_resolution)
        if y.ndim != 4 or y.shape[1:] != shape:
            raise UsageError(f"noisy images must be [n, {shape[0]}, {shape[1]}, {shape[2]}], not {list(y.shape)}")
        if not np.isfinite(y).all():
            raise DataError("noisy images must be finite numbers")
        levels = np.full(len(y), sigma, np.float64) if np.ndim(sigma) == 0 else np.array(sigma, np.float64)
        if levels.shape != (len(y),) or not (np.isfinite(levels).all() and (levels > 0).all()):
            raise UsageError(f"sigma must be one level > 0, or one for each of the {len(y)} images")
        denoise, out, batch = denoiser(network, self.trained.precision), [], _batch(batch)
        with torch.no_grad():
            for start in range(0, len(y), batch):
                part = torch.from_numpy(y[start : start + batch]).to(self._device)
                level = torch.from_numpy(levels[start : start + batch]).to(self._device)
                out.append(denoise(part, level).float().cpu().numpy())
        return np.concatenate(out) if out else np.zeros((0, *shape), np.float32)

    @property
    def _device(self) -> torch.device:
        return next(self.trained.network.parameters()).device


def generate(
    network: StrPath, outdir: StrPath = "generated", *, seeds: str | Iterable[int] = "0-63", **settings: Any
) -> generating.Generated:
    """Write generated images to a folder; `ambient generate`. For arrays see `load` and `Model.generate`.

    seeds: text such as `0-63`, or numbers. settings: of the images (`form`, `label`, `subdirs`, `device`, ...) and of
    the sampler. Raises UsageError, DataError.
    """
    quiet = bool(settings.pop("quiet", True))
    text = seeds if isinstance(seeds, str) else ",".join(str(int(s)) for s in seeds)
    own, sampler = _split(settings, GenerateOptions, GeneralSamplerConfig)
    options = from_mapping(GenerateOptions, {"seeds": text, **own}, where="option")
    return generating.generate(os.fspath(network), Path(outdir), options, sampler=sampler, quiet=quiet)


def evaluate(
    target: StrPath, *, outdir: StrPath | None = None, quiet: bool = True, **settings: Any
) -> evaluating.Evaluation:
    """Score a network or a set of images; `ambient evaluate`.

    settings: what is compared (`data`, `references`, `repeats`, ...), measured (`n`, `extractors`, `metrics`,
    `memorisation`, ...) and the sampler; where nothing is said, as the run remembers. Raises UsageError, DataError.
    """
    own, evaluation, sampler = _split(settings, Question, ScoreOptions, GeneralSamplerConfig)
    return evaluating.evaluate(
        os.fspath(target),
        from_mapping(Question, own, where="option"),
        evaluation=evaluation,
        sampler=sampler,
        outdir=None if outdir is None else Path(outdir),
        quiet=quiet,
    )


def restore(
    network: StrPath, outdir: StrPath = "restored", *, at: int | str | None = None, quiet: bool = True, **settings: Any
) -> restoring.Restored:
    """Restore noisy images with a model that was trained on such; `ambient restore`.

    settings: `data`, `sigma`, `heldout`, `originals`, `samples`, `steps`, ... Raises UsageError, DataError.
    """
    options = from_mapping(RestoreOptions, settings, where="option")
    moment = from_mapping(AtCheckpoint, {"at": at}, where="option").nimg
    made = restoring.restore(os.fspath(network), Path(outdir), options, nimg=moment, quiet=quiet)
    assert made is not None, "one process is its own leader"
    return made


def _split(settings: Mapping[str, Any], first: type, *others: type) -> tuple[Any, ...]:
    """Settings by the class that has their key: those of the first one as they are, `Given` of the others.

    Raises UsageError for a keyword that none has; one that several have is the first one's.
    """
    own, *rest = _parted(settings, first, *others)
    return own, *(Given(cls, read_values(cls, values, "option")) for cls, values in zip(others, rest, strict=True))


def _parted(settings: Mapping[str, Any], *classes: type) -> tuple[dict[str, Any], ...]:
    """Settings by the class that has their key, the first one that does. Raises UsageError where none does."""
    parts: tuple[dict[str, Any], ...] = tuple({} for _ in classes)
    for key, value in settings.items():
        part = next((p for p, cls in zip(parts, classes, strict=True) if key in by_key(cls)), None)
        if part is None:
            known = sorted({d.key for cls in classes for d in by_key(cls).values()})
            raise UsageError(f"unknown option {key}: known are {', '.join(known)}")
        part[key] = value
    return parts


def _batch(batch: int) -> int:
    return from_mapping(GenerateOptions, {"batch": batch}, where="option").batch


__all__ = ["Model", "evaluate", "generate", "load", "restore", "train"]
