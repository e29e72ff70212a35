"""The command `ambient generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ambient_theory.shared.console import command, print_json, starting
from ambient_theory.shared.options import Given, with_options
from ambient_theory.shared.signals import leave_on_signal
from ambient_train.commands.common import Json, Quiet
from ambient_train.diffusion.sampler_settings import GeneralSamplerConfig
from ambient_train.settings.requests import GenerateOptions

EXAMPLE = "Example: ambient generate runs/NAME --seeds 0-63 --format grid --outdir images"


@command
@leave_on_signal()
@with_options
def generate(
    network: Annotated[str, typer.Argument(help="Run directory, exported network, EDM .pkl or hf:ORGANISATION/NAME.")],
    options: GenerateOptions,
    sampler: Given[GeneralSamplerConfig],
    outdir: Annotated[Path, typer.Option(help="Folder for the images.", rich_help_panel="Output")] = Path("generated"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Generate images. Image k is a function of seed k alone.

    The sampler is the one that the run is scored with; options given here win.
    """
    with starting("loading PyTorch", quiet=quiet):
        from ambient_train.tasks.generate import generate as task

    result = task(network, outdir, options, sampler=sampler, quiet=quiet)
    if as_json:
        print_json(result.to_dict())
    else:
        result.show()
