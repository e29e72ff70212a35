"""What several commands share: options that settle nothing about a result, the adviser, and where a task is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from ambient_theory.shared.errors import UsageError
from ambient_train.settings.run_options import LaunchOptions

if TYPE_CHECKING:
    from ambient_theory.shared.advice import Adviser


def here_or_in_group(
    task: Callable[..., Any],
    arguments: Mapping[str, Any],
    launch: LaunchOptions,
    *,
    device: str,
    alone: bool = False,
) -> Any:
    """task(**arguments) here, or in a group of processes started from here; one of a group under torchrun or srun.

    alone: one process does, whatever was asked for. Raises UsageError where a group has another size than asked for.
    """
    from ambient_train.training.world import place_in_group

    place = place_in_group()
    if place is not None and launch.nproc not in (1, place[1]):
        raise UsageError(
            f"--nproc {launch.nproc} inside a group of {place[1]} processes: leave it out under torchrun or srun"
        )
    if place is not None or (launch.nproc == 1 and launch.nodes == 1) or alone:
        return task(**arguments)
    from ambient_train.training.launch import launch as start_group

    return start_group(task, arguments, launch, device=device)


def adviser_of(context: typer.Context) -> Adviser:
    """The theory as a sweep sees it: `cli` hands over how to make it, so that nothing here imports it."""
    made: Adviser = context.obj()
    return made
