"""The command `ambient evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ambient_theory.shared.console import command, print_json, starting
from ambient_theory.shared.options import Given, parse_images, with_options
from ambient_theory.shared.signals import leave_on_signal
from ambient_train.commands.common import Device, Json, Quiet
from ambient_train.diffusion.sampler_settings import GeneralSamplerConfig
from ambient_train.settings.evaluation import EvalConfig

EXAMPLE = "Example: ambient evaluate runs/NAME --repeats 3 --memorisation --outdir scores"


@command
@leave_on_signal()
@with_options(flags={"n": ("--n", "--n-eval"), "seed": ("--seed", "--eval-seed")})
def evaluate(
    target: Annotated[
        str,
        typer.Argument(help="Run directory, exported network, .pkl or hf:NAME; or images: folder, zip, npz."),
    ],
    evaluation: Given[EvalConfig],
    sampler: Given[GeneralSamplerConfig],
    data: Annotated[
        str | None, typer.Option(help="Data set to compare with (a name or a path). Default: the run's own.")
    ] = None,
    resolution: Annotated[int | None, typer.Option(help="Area-resize --data to this side. Default: the run's.")] = None,
    repeats: Annotated[
        int, typer.Option(help="Independent sets of images; gives mean, spread and standard error.")
    ] = 1,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            help="heldout-clean, train-clean, images, or an .npz of statistics; several times. Default: the first two."
        ),
    ] = None,
    save_stats: Annotated[Path | None, typer.Option(help="Write the reference statistics (EDM .npz) here.")] = None,
    memorisation: Annotated[
        bool, typer.Option("--memorisation", help="Also compare distances to training and to held-out images.")
    ] = False,
    at: Annotated[str | None, typer.Option(help="Checkpoint after so many images. Default: newest.")] = None,
    device: Device = "auto",
    outdir: Annotated[Path | None, typer.Option(help="Also write scores.json and records.jsonl here.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a model, or a set of images, by Frechet and kernel distance with intervals and floors.

    A run is scored as it was trained to be; options given here win.
    """
    nimg = None if at is None else parse_images(at, "--at")
    with starting("loading PyTorch", quiet=quiet):
        from ambient_train.tasks.evaluate import Question
        from ambient_train.tasks.evaluate import evaluate as task

    question = Question(
        data=data,
        resolution=resolution,
        repeats=repeats,
        references=tuple(reference or ()),
        save_stats=save_stats,
        memorisation=memorisation,
        nimg=nimg,
        device=device,
    )
    result = task(target, question, evaluation=evaluation, sampler=sampler, outdir=outdir, quiet=quiet)
    if as_json:
        print_json(result.to_dict())
    else:
        result.show()
