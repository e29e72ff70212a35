"""The command `ambient evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from ambient_theory.shared.console import command, print_json, starting
from ambient_theory.shared.options import Given, with_options
from ambient_theory.shared.output import Output
from ambient_theory.shared.signals import leave_on_signal
from ambient_train.diffusion.sampler_settings import GeneralSamplerConfig
from ambient_train.settings.evaluation import ScoreOptions
from ambient_train.settings.files import EvaluateFiles
from ambient_train.settings.requests import Question

EXAMPLE = "Example: ambient evaluate runs/NAME --repeats 3 --memorisation --outdir scores"


@command
@leave_on_signal()
@with_options(flags={"n": ("--n", "--n-eval"), "seed": ("--seed", "--eval-seed")})
def evaluate(
    target: Annotated[
        str,
        typer.Argument(help="Run directory, exported network, .pkl or hf:NAME; or images: folder, zip, npz."),
    ],
    question: Question,
    evaluation: Given[ScoreOptions],
    sampler: Given[GeneralSamplerConfig],
    files: EvaluateFiles,
    output: Output,
) -> None:
    """Score a model, or a set of images, by Frechet and kernel distance with intervals and floors.

    A run is scored as it was trained to be; options given here win.
    """
    with starting("loading PyTorch", quiet=output.quiet):
        from ambient_train.tasks.evaluate import evaluate as task

    result = task(target, question, evaluation=evaluation, sampler=sampler, outdir=files.outdir, quiet=output.quiet)
    if output.json:
        print_json(result.to_dict())
    else:
        result.show()
