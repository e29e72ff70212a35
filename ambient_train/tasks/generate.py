"""What `generate` does: images of a trained network as files."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ambient_theory.shared.console import talk
from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import atomic_write_bytes, atomic_write_text, is_free, read_json
from ambient_theory.shared.notebooks import picture_html
from ambient_theory.shared.options import Given
from ambient_theory.shared.outdirs import differing
from ambient_train.data.formats.mapped import IN_DATA, KEY
from ambient_train.data.images import save_grid, to_uint8
from ambient_train.data.readers import READERS
from ambient_train.data.values import ValueMap, values_of
from ambient_train.diffusion.generate import generate as images_of
from ambient_train.diffusion.sampler_settings import (
    GENERAL_ONLY,
    AnySampler,
    GeneralSamplerConfig,
    OneStep,
    SamplerConfig,
    check_churn,
)
from ambient_train.diffusion.sampling import parse_seeds
from ambient_train.interchange.load import Trained, load_trained
from ambient_train.networks.execution import one_thread_for_small
from ambient_train.settings.requests import GenerateOptions
from ambient_train.tasks.show import sampler_text
from ambient_train.training.world import choose_device

MARKER = "generated.json"


@dataclass(frozen=True, repr=False)
class Generated:
    """Where the images are, how many, and how they were made."""

    path: Path
    images: int
    sampler: dict[str, Any]

    def __repr__(self) -> str:
        return f"Generated({str(self.path)!r}, {self.images:,} images)"

    def _repr_html_(self) -> str:
        """The images, where they are one grid, for notebooks."""
        return picture_html(self.path if self.path.suffix == ".png" else None, repr(self))

    def to_dict(self) -> dict[str, Any]:
        return {"path": str(self.path), "images": self.images, "sampler": self.sampler}

    def show(self) -> None:
        print(f"{self.images} images in {self.path}")
        print(f"sampler: {sampler_text({'sampler': self.sampler})}")


def sampler_for(trained: Trained | None, given: Given[Any] | None = None) -> AnySampler:
    """The sampler that the run is scored with, overridden by what is given; EDM's defaults for a network of no run.

    A choice of EDM's ablation in `given` makes it the general sampler. The run's range of noise levels is for EDM's
    discretization; the others keep their published range unless `given` has one. Raises UsageError for a name that
    does not exist, and for details of a churn that is not asked for.
    """
    own = trained.evaluation.sampler if trained is not None and trained.evaluation is not None else SamplerConfig()
    values = dict(given.values) if given else {}
    if isinstance(own, OneStep):
        if values:
            raise UsageError(
                f"{trained.name if trained else 'this network'} is a distilled generator, which makes an image in one "
                f"step: leave out the sampler's {', '.join(values)}"
            )
        return own
    made: AnySampler
    if isinstance(own, GeneralSamplerConfig):
        made = Given(GeneralSamplerConfig, values).over(own)
    elif not GENERAL_ONLY & set(values):
        made = Given(SamplerConfig, values).over(own)
    else:
        kept = {k: getattr(own, k) for k in SamplerConfig.__dataclass_fields__}
        if values.get("discretization", "edm") != "edm":
            kept = {k: v for k, v in kept.items() if k not in ("sigma_min", "sigma_max")}
        made = Given(GeneralSamplerConfig, values).over(GeneralSamplerConfig(**kept))
    check_churn(values, made)
    return made


def below_the_data(trained: Trained, sampler: AnySampler) -> str:
    """A sentence where images of a noisy-only model are taken below its data's noise; empty where they are not."""
    data = trained.data
    if not data or data["n_clean"] or not data["levels"] or isinstance(sampler, OneStep):
        return ""
    lowest = data.get("lowest_level", min(data["levels"]))
    if sampler.stop_sigma >= lowest:
        return ""
    return (
        f"note: {trained.name} saw no clean image, and nothing below sigma {lowest:.4g} is learned; these images go "
        f"down to {sampler.stop_sigma:g}: give --stop-sigma {lowest:.4g} to end where its data end"
    )


def generate(
    network: str | os.PathLike[str],
    outdir: Path,
    options: GenerateOptions | None = None,
    *,
    sampler: Given[Any] | None = None,
    quiet: bool = False,
) -> Generated:
    """Write one PNG an image (`000123.png`), one npz (`images`, `seeds`), or one grid PNG.

    Images of a run on numbers of files (`data.values`) are written as such: a file an image in the format and type of
    the data, or an .npz in their units; the grid is for looking at.

    Image k is a function of the network and of seed k alone. Images of the same network are made again where they are
    there; a folder that holds anything else is refused. Raises UsageError, DataError.
    """
    options = options or GenerateOptions()
    numbers = parse_seeds(options.seeds)
    chosen = choose_device(options.device)
    trained = load_trained(network, device=chosen, nimg=options.nimg)
    one_thread_for_small(trained.arch, chosen)
    for complaint in trained.complaints:
        talk(f"passed over a damaged checkpoint: {complaint}", quiet=quiet)
    settings = sampler_for(trained, sampler)
    if note := below_the_data(trained, settings):
        talk(note, quiet=quiet)
    collected, done = [], 0
    values = values_of(trained.data)
    made = images_of(
        trained.network,
        numbers,
        settings,
        precision=trained.precision,
        batch=options.batch,
        device=chosen,
        classes=options.label,
        floats=values is not None,
    )
    _claim(outdir, trained, settings, options.label)
    for images in made:
        if options.form == "png":
            for seed, image in zip(numbers[done : done + len(images)], images, strict=True):
                folder = outdir / f"{seed - seed % 1000:06d}" if options.subdirs else outdir
                folder.mkdir(exist_ok=True)
                _save_one(folder / f"{seed:06d}", image, values)
        else:
            collected.append(images)
        done += len(images)
        talk(f"{done:,}/{len(numbers):,} images", quiet=quiet or len(numbers) <= options.batch)
    path = outdir
    if options.form == "npz":
        path = outdir / "images.npz"
        _save_npz(path, np.concatenate(collected), np.asarray(numbers), values)
    elif options.form == "grid":
        path = outdir / "grid.png"
        save_grid(to_uint8(np.concatenate(collected)), path)
    return Generated(path, len(numbers), settings.to_dict())


def _claim(outdir: Path, trained: Trained, sampler: AnySampler, label: int | None) -> None:
    """Write down whose images the folder holds and how they are made. Raises UsageError where it holds others, made of
    the same seeds in another way among them, or other things."""
    marker = outdir / MARKER
    whose = {"network": trained.name, "config_hash": trained.config.hash if trained.config else None}
    how = {"nimg": trained.nimg, "class": label, "sampler": sampler.to_dict()}
    mine = dict(json.loads(json.dumps({**whose, **how})))
    if marker.is_file():
        try:
            stored = {**mine, **dict.fromkeys(whose, ""), **read_json(marker)}  # an earlier version did not say how
        except (DataError, TypeError):
            stored = {}
        others = differing(stored, mine)
        if whose.keys() & set(others):
            raise UsageError(f"{outdir} holds images of another network: choose another --outdir")
        if others:
            raise UsageError(f"{outdir} holds images with another {', '.join(others)}: choose another --outdir")
    elif not is_free(outdir):
        raise UsageError(f"{outdir} is not empty and holds no images of ambient generate: choose another --outdir")
    atomic_write_text(marker, json.dumps(mine) + "\n")


def _save_one(stem: Path, image: np.ndarray, values: ValueMap | None) -> None:
    """One image [C, H, W]: a PNG of 8 bits, or a file of the data's own format and type."""
    if values is None:
        pixels = image.transpose(1, 2, 0)
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(f"{stem}.png")
        return
    own = values.to_own(image[None])
    form = READERS[values.kind].format if values.kind in READERS else None
    if form is not None:
        form.write(Path(f"{stem}{form.suffixes[0]}"), own, None, "")
    else:
        np.save(f"{stem}.npy", own[0])


def _save_npz(path: Path, images: np.ndarray, seeds: np.ndarray, values: ValueMap | None) -> None:
    data = io.BytesIO()
    arrays: dict[str, Any] = {"images": images, "seeds": seeds}
    if values is not None:
        arrays |= {"images": values.to_own(images), KEY: values.to_bytes(**{IN_DATA: True})}
    np.savez_compressed(data, **arrays)
    atomic_write_bytes(path, data.getvalue())
