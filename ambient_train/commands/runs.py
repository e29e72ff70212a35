"""The commands `ambient runs` and `ambient runs compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ambient_theory.shared.console import command, print_json, starting, talk
from ambient_theory.shared.options import with_options
from ambient_theory.shared.output import AsJson, Output
from ambient_theory.shared.signals import leave_on_signal
from ambient_train.settings.files import CurveFiles, RunsFolder

EXAMPLE = "Example: ambient runs --runs demo/runs"

runs_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@runs_app.callback(invoke_without_command=True, epilog=EXAMPLE)
@command
@leave_on_signal()
@with_options
def runs(context: typer.Context, files: RunsFolder, output: AsJson) -> None:
    """List runs: how far each is, its score, and the command that continues it.

    Nothing is loaded or written. The score is the distance to held-out images in the last features that were measured;
    nats is the held-out denoising error. Lower is better.
    """
    if context.invoked_subcommand is not None:
        return
    from ambient_train.tasks.runs import list_runs

    listed = list_runs(files.runs)
    if output.json:
        print_json(listed.to_dict())
    else:
        listed.show()


@runs_app.command("compare", epilog="Example: ambient runs compare runs/A runs/B --html runs.html")
@command
@leave_on_signal()
@with_options
def runs_compare(
    runs: Annotated[list[Path], typer.Argument(help="Run directories, two to six.")],
    files: CurveFiles,
    output: Output,
) -> None:
    """Draw runs beside each other: training loss, held-out error on the way, held-out denoising error by level.

    Says in which settings they differ. For what noisy images are worth see `ambient compare`.
    """
    with starting("loading Matplotlib", quiet=output.quiet):
        from ambient_train.tasks.curves import compare_runs

    compared = compare_runs(runs, files)
    for note in compared.notes:
        talk(f"note: {note}", quiet=output.quiet)
    if output.json:
        print_json(compared.to_dict())
    else:
        compared.show()
