"""The command `ambient config show`."""

from __future__ import annotations

from typing import Annotated

import typer

from ambient_theory.shared.console import command, print_json, talk
from ambient_theory.shared.options import Given, with_options
from ambient_theory.shared.output import Output
from ambient_theory.shared.signals import leave_on_signal
from ambient_train.diffusion.sampler_settings import SamplerConfig
from ambient_train.settings.amounts import Amounts
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.evaluation import EvalConfig
from ambient_train.settings.layers import NetworkFlags, Start
from ambient_train.settings.run_options import Schedule

config_app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@config_app.callback()
def config() -> None:
    """Settings of trainings: show them as a file."""


@config_app.command("show", epilog="Example: ambient config show cifar10 --sigma 0.2 --corruption 0.9 > run.toml")
@command
@leave_on_signal()
@with_options
def config_show(
    start: Given[Start],
    config: Given[TrainConfig],
    amounts: Given[Amounts],
    network: Given[NetworkFlags],
    schedule: Given[Schedule],
    evaluation: Given[EvalConfig],
    sampler: Given[SamplerConfig],
    output: Output,
    source: Annotated[
        str | None, typer.Argument(help="A preset, a TOML file of settings, or a run directory. Default: the defaults.")
    ] = None,
) -> None:
    """Print all settings of a training as a TOML file, which `ambient train --config` reads back to the same run.

    Flags win over SOURCE, as they do in `ambient train`.
    """
    from ambient_train.tasks.config import show_config

    shown = show_config(
        source, start, config, amounts, schedule, network=network, evaluation=evaluation, sampler=sampler
    )
    for note in shown.notes:
        talk(f"note: {note}", quiet=output.quiet)
    if output.json:
        print_json(shown.to_dict())
    else:
        shown.show()
