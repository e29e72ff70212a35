"""The command `ambient generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ambient_theory.shared.console import command, print_json, starting
from ambient_theory.shared.options import Given, parse_images, with_options
from ambient_theory.shared.signals import leave_on_signal
from ambient_train.commands.common import Device, Json, Quiet
from ambient_train.diffusion.sampler_settings import GeneralSamplerConfig

EXAMPLE = "Example: ambient generate runs/NAME --seeds 0-63 --format grid --outdir images"


@command
@leave_on_signal()
@with_options
def generate(
    network: Annotated[str, typer.Argument(help="Run directory, exported network, EDM .pkl or hf:ORGANISATION/NAME.")],
    sampler: Given[GeneralSamplerConfig],
    outdir: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("generated"),
    seeds: Annotated[str, typer.Option(help="One image a seed: 0-63, or 1,5,9-12.")] = "0-63",
    form: Annotated[str, typer.Option("--format", help="png (one an image), npz, or grid.")] = "png",
    subdirs: Annotated[bool, typer.Option("--subdirs", help="A sub-folder for every 1000 seeds.")] = False,
    label: Annotated[int | None, typer.Option("--class", help="Class label. Default: seed modulo classes.")] = None,
    batch: Annotated[int, typer.Option(help="Images at once.")] = 256,
    at: Annotated[str | None, typer.Option(help="Checkpoint after so many images, e.g. 100k. Default: newest.")] = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Generate images. Image k is a function of seed k alone.

    The sampler is the one that the run is scored with; options given here win.
    """
    nimg = None if at is None else parse_images(at, "--at")
    with starting("loading PyTorch", quiet=quiet):
        from ambient_train.tasks.generate import generate as task

    result = task(
        network,
        outdir,
        seeds=seeds,
        form=form,
        subdirs=subdirs,
        label=label,
        sampler=sampler,
        batch=batch,
        nimg=nimg,
        device=device,
        quiet=quiet,
    )
    if as_json:
        print_json(result.to_dict())
    else:
        result.show()
