"""What `generate` does: images of a trained network as files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ambient_theory.shared.console import talk
from ambient_theory.shared.errors import UsageError
from ambient_train.data.images import save_grid
from ambient_train.diffusion.generate import generate
from ambient_train.diffusion.sampling import Sampler, SamplerConfig, parse_seeds
from ambient_train.interchange.load import LoadedNetwork, load_denoiser
from ambient_train.settings.config import default_preset, get_preset
from ambient_train.training.world import choose_device

GENERAL = ("discretization", "schedule", "scaling")
"""Settings that only `GeneralSamplerConfig` has."""


def sampler_for(loaded: LoadedNetwork | None, flags: Mapping[str, Any]) -> SamplerConfig:
    """The sampler settings of the run's preset, overridden by `flags`."""
    base: Mapping[str, Any] = {}
    if loaded is not None and loaded.config is not None:
        base = get_preset(default_preset(loaded.config.data)).sampler
    return SamplerConfig(**{**base, **flags})


def general_sampler_for(loaded: LoadedNetwork | None, flags: Mapping[str, Any]) -> Sampler:
    """`sampler_for`, or the general sampler of EDM's ablation where `flags` has one of its choices.

    The range of noise levels of the run's preset is for EDM's discretization; the others keep their published range
    unless `flags` gives one. Raises UsageError for a name that does not exist.
    """
    if not any(name in flags for name in GENERAL):
        return sampler_for(loaded, flags)
    from ambient_train.diffusion.ablation_sampler import GeneralSamplerConfig

    base = asdict(sampler_for(loaded, {}))
    if flags.get("discretization", "edm") != "edm":
        base = {k: v for k, v in base.items() if k not in ("sigma_min", "sigma_max")}
    return GeneralSamplerConfig(**{**base, **flags})


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
    settings = general_sampler_for(loaded, sampler or {})
    outdir.mkdir(parents=True, exist_ok=True)
    collected, done = [], 0
    made = generate(
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
        save_grid(np.concatenate(collected), path)
    return {
        "path": str(path),
        "images": len(numbers),
        "sampler": {k: None if v == math.inf else v for k, v in asdict(settings).items()},
    }
