"""What `restore` does: noisy images to their posterior under a trained model, as files, with scores where it can."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ambient_theory.shared.console import talk
from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.files import atomic_write_text
from ambient_theory.shared.notebooks import picture_html
from ambient_theory.shared.progress import Listener, Progress, progress_listener
from ambient_train.data.formats.frames import FrameTree
from ambient_train.diffusion.generate import denoiser
from ambient_train.diffusion.restore import QUANTILES, interval_probability
from ambient_train.diffusion.restore import restore as posterior_of
from ambient_train.diffusion.sampler_settings import OneStep
from ambient_train.evaluation.restoration import CANDIDATES, LIBRARY, Tally, Wiener
from ambient_train.interchange.load import Trained, load_trained
from ambient_train.networks.execution import one_thread_for_small
from ambient_train.runs.run import sole_user
from ambient_train.settings.restore import RestoreOptions
from ambient_train.tasks.restore_counts import WITHOUT_SAMPLES, in_counts
from ambient_train.tasks.restore_files import IN_VALUES, RestorationFolder
from ambient_train.tasks.restore_inputs import Noisy, cautions, noisy_images
from ambient_train.training.world import World, join_group

SIGMA_MIN_WITHOUT_RUN = 0.002


@dataclass(frozen=True, repr=False)
class Restored:
    """Where the restored images are, how many, and their scores (None where no original is known)."""

    directory: Path
    facts: Mapping[str, Any]

    def __repr__(self) -> str:
        known = self.scores
        scores = "" if known is None else f": PSNR in dB {_with_error(known['psnr_db']['posterior mean'], 2)}"
        return f"Restored({str(self.directory)!r}, {self.facts['noisy']:,} noisy images{scores})"

    def _repr_html_(self) -> str:
        """The first images, noisy and restored, for notebooks."""
        return picture_html(self.directory / "grid.png", repr(self))

    @property
    def scores(self) -> Mapping[str, Any] | None:
        """See `evaluation.restoration`."""
        return self.facts["scores"]

    def to_dict(self) -> dict[str, Any]:
        return {"directory": str(self.directory), **self.facts}

    def show(self) -> None:
        f = self.facts
        levels = ", ".join(f"{s:.4g}" for s in f["levels"])
        print(
            f"{f['noisy']:,} noisy images (sigma {levels}) restored, {f['clean']:,} clean ones unchanged: "
            f"{self.directory}"
        )
        if self.scores is not None:
            show_scores(self.scores)


def show_scores(scores: Mapping[str, Any]) -> None:
    """A table of PSNR (and SSIM), and the sentences on intervals, on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    named = {"psnr_db": ("PSNR (dB)", 2), "ssim": ("SSIM", 4)}
    table.add_column("")
    for key in (key for key in named if key in scores):
        table.add_column(named[key][0], justify="right")
    for name in (name for name in CANDIDATES if name in scores["psnr_db"]):
        cells = [_with_error(scores[key][name], digits) for key, (_, digits) in named.items() if key in scores]
        table.add_row(name, *cells)
    Console().print(table)
    print(f"{scores['images']:,} images with known originals; +- one standard error over images; nothing is clipped")
    if "left_out" in scores:
        print(f"left out, for they would not know this noise, which is not white: {' and '.join(scores['left_out'])}")
    if "ssim" not in scores:
        print(f"SSIM and non-local means are left out: {LIBRARY} is not installed")
    if "coverage" in scores:
        shown = {k: v for k, v in scores["coverage"].items() if isinstance(v, Mapping)}
        words = "; ".join(f"{name} {_with_error(value, 3)}" for name, value in shown.items())
        print(f"originals inside the interval: {words}; promised {scores['coverage']['promised']:.3f}")
        print(f"squared error of the mean over variance of the samples: {scores['spread']:.3g} (calibrated: 1)")


def _with_error(value: Mapping[str, float | None], digits: int) -> str:
    if value["value"] is None:
        return "exact"
    return f"{value['value']:.{digits}f}" + (f" +- {value['stderr']:.{digits}f}" if value["stderr"] is not None else "")


def restore(
    network: str | os.PathLike[str],
    outdir: Path,
    options: RestoreOptions | None = None,
    *,
    nimg: int | None = None,
    quiet: bool = False,
) -> Restored | None:
    """Restore the noisy images of a run, or others; the same call again continues, or finds it done.

    network: as for `load_trained`; nimg: its checkpoint. In a group of processes (torchrun, srun, `launch`) every
    process calls this and takes every so many-th chunk; they share `outdir`, and only the leader returns a result.
    Everything is checked before anything is written. Raises UsageError, DataError, DivergedError, BusyError.
    """
    options = options or RestoreOptions()
    with join_group(options.device) as world:
        quiet = quiet or not world.leader
        with world.together():
            trained = load_trained(network, device=world.device, nimg=nimg)
            if trained.one_step:
                raise UsageError(f"{network} is a distilled generator, no denoiser: restore with the run it came from")
            noisy = noisy_images(trained, options)
            if options.samples == 0 and not noisy.noise.white:
                raise UsageError(
                    "--samples 0: the posterior mean under noise that is not white is an average over samples; give 2 "
                    "or more"
                )
        one_thread_for_small(trained.arch, world.device)
        low = _lowest(trained, options)
        folder = RestorationFolder(
            outdir, _identity(trained, noisy, options, low), noisy, options.samples, options.keep_samples
        )
        world.by_leader(folder.check)
        with sole_user(outdir, world):
            facts = world.by_leader(lambda: _begin(folder))
            if facts is not None:
                talk(f"already done: {outdir}", quiet=quiet)
            else:
                notes = cautions(trained, noisy)
                if noisy.of_counts and not options.samples:
                    notes.append(WITHOUT_SAMPLES)
                for note in (*trained.complaints, *noisy.images.notes, *notes):
                    talk(f"note: {note}", quiet=quiet)
                with progress_listener(quiet) as listener:
                    missing = world.by_leader(folder.missing)
                    with world.together():
                        _restore_chunks(folder, trained, options, low, missing, world, listener)
                    facts = world.by_leader(lambda: _finish(folder, notes, listener))
        return Restored(outdir, facts) if world.leader else None


def _lowest(trained: Trained, options: RestoreOptions) -> float:
    """The lowest level of a sample's way."""
    if options.sigma_min is not None:
        return options.sigma_min
    sampler = None if trained.evaluation is None else trained.evaluation.sampler
    return SIGMA_MIN_WITHOUT_RUN if sampler is None or isinstance(sampler, OneStep) else sampler.bounds[0]


def _identity(trained: Trained, noisy: Noisy, options: RestoreOptions, low: float) -> dict[str, dict[str, Any]]:
    """What makes a restoration this one: the weights, the pixels and levels, and how samples are drawn."""
    weights = hashlib.sha256()
    for name, tensor in sorted(trained.network.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().to("cpu", torch.float64).contiguous().numpy().tobytes())
    originals = None
    if noisy.originals is not None and noisy.known is not None:
        originals = hashlib.sha256(noisy.originals.tobytes() + noisy.known.tobytes()).hexdigest()[:16]
    names = ("samples", "steps", "seed", "keep_samples")
    return {
        "network": {"weights": weights.hexdigest()[:16]},
        "data": {"images": noisy.images.content_hash[:16], "originals": originals},
        "settings": {
            **{name: getattr(options, name) for name in names},
            **({} if noisy.noise.white else {"sweeps": options.sweeps}),
            "sigma_min": low,
            **({"averages": "of counts"} if noisy.of_counts and options.samples else {}),
        },
    }


def _begin(folder: RestorationFolder) -> dict[str, Any] | None:
    """Claim the folder; the facts of the restoration where it is finished."""
    folder.claim()
    done = folder.result()
    if done is not None:
        folder.clear()
        return _facts(done)
    return None


def _restore_chunks(
    folder: RestorationFolder,
    trained: Trained,
    options: RestoreOptions,
    low: float,
    missing: list[int],
    world: World,
    listener: Listener,
) -> None:
    """This rank's share of the missing chunks."""
    images, mine = folder.noisy.images, missing[world.rank :: world.size]
    denoise, classes = denoiser(trained.network, trained.precision), trained.network.label_dim
    done, total = 0, sum(len(folder.rows_of(k)) for k in mine)
    for chunk in mine:
        rows = folder.rows_of(chunk)
        labels = None
        if classes and images.labels is not None:
            labels = torch.nn.functional.one_hot(torch.from_numpy(images.labels[rows]), classes).float()
        found = posterior_of(
            denoise,
            images.pixels(rows),
            folder.noisy.sigma_n[rows],
            images.ids[rows],
            samples=options.samples,
            steps=options.steps,
            sigma_min=low,
            seed=options.seed,
            batch=options.batch,
            class_labels=labels,
            device=world.device,
            noise=folder.noisy.noise.at(torch.from_numpy(rows)),
            sweeps=options.sweeps,
        )
        arrays = {"images": found.mean, "samples": found.samples, "std": found.std, "sample_mean": found.sample_mean}
        arrays |= dict(zip(("q05", "q50", "q95"), found.quantiles, strict=True))
        if options.samples:
            arrays["sample"] = found.samples[:, 0]
            if folder.noisy.of_counts and images.values is not None:
                arrays |= {IN_VALUES + name: array for name, array in in_counts(found, images.values).items()}
        folder.write_chunk(chunk, arrays)
        done += len(rows)
        listener(Progress("restoring", done, total))


def _finish(folder: RestorationFolder, notes: list[str], listener: Listener) -> dict[str, Any]:
    """Chunks become arrays, files, scores and a picture; the sealed result comes last."""
    noisy = folder.noisy
    files = folder.write_files()
    folder.write_arrays()
    folder.write_grid()
    if noisy.tree is not None and (left := len(noisy.tree.images) - len(noisy.images)):
        where = "stand in restored/ as they were" if isinstance(noisy.tree, FrameTree) else "are not in restored/"
        notes = [
            *notes,
            f"{left:,} images of these files (held out, or beyond --max-images) were not asked for and {where}",
        ]
    scores = _scores(folder, listener)
    if scores is not None:
        atomic_write_text(folder.path / "scores.json", json.dumps(scores, indent=1) + "\n")
    levels = np.unique(noisy.sigma_n[noisy.rows])
    done = folder.finish(
        {
            "images": len(noisy.images),
            "noisy": len(noisy.rows),
            "clean": len(noisy.images) - len(noisy.rows),
            "levels": [float(s) for s in (levels if len(levels) <= 8 else levels[[0, -1]])],
            **folder.identity["settings"],
            "quantiles": list(QUANTILES) if folder.samples else [],
            "arrays": "restored.npz",
            "files": None if files is None else files.name,
            "picture": "grid.png",
            "scores": scores,
            "notes": notes,
        }
    )
    return _facts(done)


def _facts(done: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in done.items() if key != "schema"}


def _scores(folder: RestorationFolder, listener: Listener) -> dict[str, Any] | None:
    """Of the noisy images whose originals are known; None where there is none."""
    noisy = folder.noisy
    if noisy.originals is None or noisy.known is None or not noisy.known.any():
        return None
    kind = noisy.noise.describe()
    known = "pattern" not in kind
    tally = Tally(
        Wiener.of(noisy.images.pixels(), noisy.sigma_n, kind.get("spectrum", 1.0)) if known else None,
        interval_probability(folder.samples) if folder.samples else 0.0,
        noisy.eight_bits,
    )
    names = tuple(name for name in folder.columns if name != "samples")
    for chunk in range(folder.chunks):
        rows = folder.rows_of(chunk)
        keep = noisy.known[rows]
        if keep.any():
            restored = {name: values[keep] for name, values in folder.read_chunk(chunk, *names).items()}
            chosen = rows[keep]
            tally.add(noisy.images.pixels(chosen), noisy.sigma_n[chosen], noisy.originals[chosen], restored)
        listener(Progress("scoring", int(rows[-1]) + 1, len(noisy.images)))
    return tally.to_dict()
