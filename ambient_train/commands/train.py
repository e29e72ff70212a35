"""The command `ambient train`. Options are made from the dataclasses of `settings`; heavy modules come when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ambient_theory.shared.console import command, print_json, starting
from ambient_theory.shared.options import Given, with_options
from ambient_theory.shared.signals import leave_on_signal
from ambient_train.commands.common import Json, Quiet, here_or_in_group
from ambient_train.diffusion.sampler_settings import SamplerConfig
from ambient_train.settings.amounts import Amounts
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.evaluation import EvalConfig
from ambient_train.settings.layers import NetworkFlags, Start, flags_over_file
from ambient_train.settings.run_options import LaunchOptions, RunOptions, Schedule, process_share

EXAMPLE = "Example: ambient train --data photos/ --resolution 32 --sigma 0.2 --corruption 0.9 --duration 200k"


@command
@leave_on_signal()
@with_options
def train(
    config: Given[TrainConfig],
    amounts: Given[Amounts],
    start: Given[Start],
    network: Given[NetworkFlags],
    schedule: Given[Schedule],
    evaluation: Given[EvalConfig],
    sampler: Given[SamplerConfig],
    run: RunOptions,
    launch: LaunchOptions,
    file: Annotated[
        Path | None, typer.Option("--config", help="TOML file of settings; flags win over it.", rich_help_panel="Run")
    ] = None,
    outdir: Annotated[
        Path | None,
        typer.Option(
            help="Run directory. Default: runs/<dataset>-s<sigma>-c<share>-seed<k>-<hash>.", rich_help_panel="Run"
        ),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            help="tensorboard or wandb, beside metrics.jsonl; several times. Default: neither.",
            rich_help_panel="Output",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print what would be done, with time and memory.", rich_help_panel="Output"),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a diffusion model on a mixture of clean and noisy images, and score it.

    The same command again continues, or says that it is done.
    """
    settings = flags_over_file(
        file, config, amounts, start, schedule, network=network, evaluation=evaluation, sampler=sampler
    )
    process_share(settings.train.batch, launch.nproc * launch.nodes, run.micro_batch)
    with starting("loading PyTorch", quiet=quiet):
        from ambient_train.tasks.train import train as task

    where = {"outdir": outdir, "log": tuple(log or ()), "dry_run": dry_run, "quiet": quiet}
    arguments = {"settings": settings, "options": run, **where}
    result = here_or_in_group(task, arguments, launch, device=run.device, alone=dry_run)
    if result is None:  # a process of a group that is not its leader
        return
    if as_json:
        print_json(result.to_dict())
    else:
        result.show()
