"""The command `ambient restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ambient_theory.shared.console import command, print_json, starting
from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import parse_images, with_options
from ambient_theory.shared.signals import leave_on_signal
from ambient_train.commands.common import Json, Quiet
from ambient_train.settings.restore import RestoreOptions
from ambient_train.settings.run_options import LaunchOptions

EXAMPLE = "Example: ambient restore runs/NAME --outdir restored"


@command
@leave_on_signal()
@with_options
def restore(
    network: Annotated[str, typer.Argument(help="Run directory, exported network, EDM .pkl or hf:ORGANISATION/NAME.")],
    options: RestoreOptions,
    launch: LaunchOptions,
    at: Annotated[str | None, typer.Option(help="Checkpoint after so many images, e.g. 100k. Default: newest.")] = None,
    outdir: Annotated[Path, typer.Option(help="Folder for restored.npz, files, scores.json and grid.png.")] = Path(
        "restored"
    ),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Restore noisy images with a model trained on such: posterior mean, samples, deviation and intervals per pixel.

    Clean images pass unchanged. The same command again continues, or says that it is done.
    """
    nimg = None if at is None else parse_images(at, "--at")
    result = _start(options, launch, {"network": network, "outdir": outdir, "nimg": nimg, "quiet": quiet})
    if result is None:  # a process of a group that is not its leader
        return
    if as_json:
        print_json(result.to_dict())
    else:
        result.show()


def _start(options: RestoreOptions, launch: LaunchOptions, where: dict[str, Any]) -> Any:
    """Here, or in a group of processes started from here; under torchrun or srun this is one of a group."""
    with starting("loading PyTorch", quiet=where["quiet"]):
        from ambient_train.tasks.restore import restore as task
        from ambient_train.training.world import place_in_group

    place = place_in_group()
    if place is not None and launch.nproc not in (1, place[1]):
        raise UsageError(
            f"--nproc {launch.nproc} inside a group of {place[1]} processes: leave it out under torchrun or srun"
        )
    if place is not None or (launch.nproc == 1 and launch.nodes == 1):
        return task(options=options, **where)
    from ambient_train.training.launch import launch as start_group

    return start_group(task, {"options": options, **where}, launch, device=options.device)
