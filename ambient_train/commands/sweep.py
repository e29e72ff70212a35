"""The commands `ambient sweep init | run | plan | status`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ambient_theory.shared.console import command, print_json, starting, talk
from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import Given, check_at_default, with_options
from ambient_theory.shared.output import AsJson, Output
from ambient_theory.shared.signals import leave_on_signal
from ambient_train.commands.common import adviser_of
from ambient_train.settings.files import PlanFiles, RunsFolder, SweepFiles
from ambient_train.settings.plan_options import GridStart, PlanOptions
from ambient_train.settings.run_options import PoolOptions, SlurmOptions

sweep_app = typer.Typer(
    help="Grids of trainings: init, plan, run, status.", no_args_is_help=True, pretty_exceptions_enable=False
)

GridFile = Annotated[Path, typer.Argument(help="Grid file (TOML).")]


@sweep_app.command("init", epilog="Example: ambient sweep init grid.toml --data photos/ --resolution 32 --sigma 0.2")
@command
@leave_on_signal()
@with_options
def sweep_init(
    start: GridStart,
    output: Output,
    grid: Annotated[Path, typer.Argument(help="Grid file (TOML) to write.")] = Path("grid.toml"),
) -> None:
    """Write a grid to begin with: clean images, mixtures with noisy ones, and their clean part alone, with comments."""
    from ambient_train.sweep.begin import write_first_grid

    written = write_first_grid(grid, start)
    for note in written.notes:
        talk(f"note: {note}", quiet=output.quiet)
    if output.json:
        print_json(written.to_dict())
    else:
        written.show()


@sweep_app.command("run", epilog="Example: ambient sweep run grid.toml --workers 2 --outdir results")
@command
@leave_on_signal()
@with_options
def sweep_run(
    grid: GridFile,
    pool: PoolOptions,
    jobs: Given[SlurmOptions],
    files: SweepFiles,
    output: Output,
) -> None:
    """Run the cells of a grid that are not done; write records (JSONL) and a table (CSV); print the table.

    With --slurm, jobs of a cluster do it; the folder of runs must be reachable from all of its machines.
    """
    if not files.slurm and (jobs.values or files.wait):
        raise UsageError("--wait and the options --slurm-... are for jobs: add --slurm, or leave them out")
    with starting("loading PyTorch", quiet=output.quiet):
        from ambient_train.sweep.report import SweepResult, run_grid
    result: Any
    if files.slurm:
        from ambient_train.sweep.slurm import submit_grid, wait_for_grid

        options = jobs.over(SlurmOptions(jobs=pool.workers))
        result = submit_grid(grid, files.runs, options, threads=pool.threads, device=pool.device, outdir=files.outdir)
        if files.wait:
            talk(f"submitted {', '.join(job.job_id for job in result.jobs)}; logs: {result.logs}", quiet=output.quiet)
            result = wait_for_grid(result, files.runs, outdir=files.outdir, quiet=output.quiet)
    else:
        result = run_grid(grid, files.runs, **vars(pool), outdir=files.outdir, quiet=output.quiet)
    if output.json:
        print_json(result.to_dict())
    else:
        result.show()
    if isinstance(result, SweepResult):
        result.check()


@sweep_app.command("plan", epilog="Example: ambient sweep plan grid.toml --target price --sigma 0.2 --cells 12")
@command
@leave_on_signal()
@with_options
def sweep_plan(
    context: typer.Context,
    grid: GridFile,
    asked: Given[PlanOptions],
    files: PlanFiles,
    output: AsJson,
    records: Annotated[
        list[Path] | None,
        typer.Argument(help="With --target: records to add to those of the grid's finished cells, files or folders."),
    ] = None,
) -> None:
    """Print the cells of a grid, images to train and to generate, parameters and estimated time.

    Times are measured here on small micro-batches; where the data is not here, they are those of published runs.

    With --target price: which of its cells to train next for the narrowest interval of the price at --sigma, and a grid
    of them.
    """
    options = asked.over(PlanOptions())
    if options.target is None:
        if asked.values or records:
            raise UsageError("RECORDS, --sigma, --cells and --budget choose cells for a price: add --target price")
        check_at_default(files, ("runs", "outdir"), "is for a chosen grid: add --target price, or leave it out")
        with starting("measuring the cells", quiet=output.json):
            from ambient_train.sweep.plan import plan_grid

            result: Any = plan_grid(grid)
    else:
        from ambient_train.sweep.advise import next_cells

        result = next_cells(
            grid,
            adviser_of(context),
            sigma_n=options.sigma_n,
            outdir=files.outdir,
            cells=options.cells,
            budget_nimg=options.budget_nimg,
            records=records or (),
            runs=files.runs,
        )
    if output.json:
        print_json(result.to_dict())
    else:
        result.show()


@sweep_app.command("status", epilog="Example: ambient sweep status grid.toml")
@command
@leave_on_signal()
@with_options
def sweep_status(grid: GridFile, files: RunsFolder, output: AsJson) -> None:
    """Say which cells of a grid are done, started or missing."""
    from ambient_train.sweep.status import status_grid

    status = status_grid(grid, files.runs)
    if output.json:
        print_json(status.to_dict())
    else:
        status.show()
