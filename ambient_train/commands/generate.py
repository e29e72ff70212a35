"""The command `ambient generate`."""

from __future__ import annotations

from typing import Annotated

import typer

from ambient_theory.shared.console import command, print_json, starting
from ambient_theory.shared.options import Given, with_options
from ambient_theory.shared.output import Output
from ambient_theory.shared.signals import leave_on_signal
from ambient_train.diffusion.sampler_settings import GeneralSamplerConfig
from ambient_train.settings.files import GenerateFiles
from ambient_train.settings.requests import GenerateOptions

EXAMPLE = "Example: ambient generate runs/NAME --seeds 0-63 --format grid --outdir images"


@command
@leave_on_signal()
@with_options
def generate(
    network: Annotated[str, typer.Argument(help="Run directory, exported network, EDM .pkl or hf:ORGANISATION/NAME.")],
    options: GenerateOptions,
    sampler: Given[GeneralSamplerConfig],
    files: GenerateFiles,
    output: Output,
) -> None:
    """Generate images. Image k is a function of seed k alone.

    The sampler is the one that the run is scored with; options given here win.
    """
    with starting("loading PyTorch", quiet=output.quiet):
        from ambient_train.tasks.generate import generate as task

    result = task(network, files.outdir, options, sampler=sampler, quiet=output.quiet)
    if output.json:
        print_json(result.to_dict())
    else:
        result.show()
