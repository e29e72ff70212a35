"""The command `ambient restore`."""

from __future__ import annotations

from typing import Annotated

import typer

from ambient_theory.shared.console import command, print_json, starting
from ambient_theory.shared.options import with_options
from ambient_theory.shared.output import Output
from ambient_theory.shared.signals import leave_on_signal
from ambient_train.commands.common import here_or_in_group
from ambient_train.settings.files import RestoreFiles
from ambient_train.settings.requests import AtCheckpoint
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
    weights: AtCheckpoint,
    files: RestoreFiles,
    output: Output,
) -> None:
    """Restore noisy images with a model trained on such: posterior mean, samples, deviation, intervals per pixel.

    Clean images pass unchanged. The same command again continues, or says that it is done.
    """
    with starting("loading PyTorch", quiet=output.quiet):
        from ambient_train.tasks.restore import restore as task

    where = {"outdir": files.outdir, "quiet": output.quiet}
    arguments = {"options": options, "network": network, "nimg": weights.nimg, **where}
    result = here_or_in_group(task, arguments, launch, device=options.device)
    if result is None:  # a process of a group that is not its leader
        return
    if output.json:
        print_json(result.to_dict())
    else:
        result.show()
