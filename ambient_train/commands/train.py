"""The command `ambient train`. Options are made from the dataclasses of `settings`; heavy modules come when it runs."""

from __future__ import annotations

from ambient_theory.shared.console import command, print_json, starting
from ambient_theory.shared.options import Given, with_options
from ambient_theory.shared.output import Output
from ambient_theory.shared.signals import leave_on_signal
from ambient_train.commands.common import here_or_in_group
from ambient_train.diffusion.sampler_settings import SamplerConfig
from ambient_train.settings.amounts import Amounts
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.evaluation import EvalConfig
from ambient_train.settings.files import TrainFiles
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
    files: TrainFiles,
    output: Output,
) -> None:
    """Train a diffusion model on a mixture of clean and noisy images, and score it.

    The same command again continues, or says that it is done.
    """
    settings = flags_over_file(
        files.file, config, amounts, start, schedule, network=network, evaluation=evaluation, sampler=sampler
    )
    process_share(settings.train.batch, launch.nproc * launch.nodes, run.micro_batch)
    with starting("loading PyTorch", quiet=output.quiet):
        from ambient_train.tasks.train import train as task

    where = {"outdir": files.outdir, "log": files.log, "dry_run": files.dry_run, "quiet": output.quiet}
    arguments = {"settings": settings, "options": run, **where}
    result = here_or_in_group(task, arguments, launch, device=run.device, alone=files.dry_run)
    if result is None:  # a process of a group that is not its leader
        return
    if output.json:
        print_json(result.to_dict())
    else:
        result.show()
